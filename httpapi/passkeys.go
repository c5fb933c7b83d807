package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/directory"
	"github.com/counterfoil/counterfoil/verify"
)

var faultAge = fault{http.StatusUnauthorized, verify.CodeInsufficientAuth}

const (
	beginning = "Sets the cookie __Host-counterfoil-ceremony, which binds what was begun to this browser for five minutes."
	freshness = "Needs an authentication of the last ten minutes: step up and repeat."
)

func passkeyRoutes() []route {
	return []route{
		handle(route{
			method: http.MethodPost, path: "/passkeys/sign-in/begin", name: "beginPasskeySignIn", credential: public,
			summary: "Begin a sign-in with a passkey", detail: "Names nobody: the browser offers the passkeys that it has for this host. " + beginning,
			faults: []fault{faultRate},
		}, beginPasskeySignIn),
		handle(route{
			method: http.MethodPost, path: "/passkeys/sign-in", name: "passkeySignIn", credential: public,
			summary: "Start a session with a passkey",
			detail:  "A session whose cookie the request brings is ended, since its cookie is replaced.",
			faults:  []fault{faultCredentials},
		}, passkeySignIn),
		handle(route{
			method: http.MethodPost, path: "/passkeys/sign-up/begin", name: "beginPasskeySignUp", credential: public,
			summary: "Begin the making of a user who has a passkey and no password", detail: beginning,
			faults: []fault{faultConflict, faultRate},
		}, beginPasskeySignUp),
		handle(route{
			method: http.MethodPost, path: "/passkeys/sign-up", name: "passkeySignUp", credential: public, status: http.StatusCreated,
			summary: "Make a user with a passkey and sign them in",
			faults:  []fault{faultConflict},
		}, passkeySignUp),
		handle(route{
			method: http.MethodGet, path: "/passkeys", name: "listPasskeys", credential: userSession,
			summary: "The user's passkeys", faults: []fault{faultNotFound},
		}, listPasskeys),
		handle(route{
			method: http.MethodPost, path: "/passkeys/begin", name: "beginAddPasskey", credential: userSession,
			summary: "Begin the making of one more passkey", detail: freshness + " " + beginning,
			faults: []fault{faultAge, faultConflict, faultCredentials, faultNotFound, faultRate},
		}, beginAddPasskey),
		handle(route{
			method: http.MethodPost, path: "/passkeys", name: "addPasskey", credential: userSession, status: http.StatusCreated,
			summary: "Add a passkey", detail: freshness,
			faults: []fault{faultAge, faultConflict, faultCredentials, faultNotFound},
		}, addPasskey),
		handle(route{
			method: http.MethodPatch, path: "/passkeys/{id}", name: "renamePasskey", credential: userSession,
			summary: "Give a passkey another name", detail: freshness,
			faults: []fault{faultAge, faultCredentials, faultNotFound},
		}, renamePasskey),
		handle(route{
			method: http.MethodDelete, path: "/passkeys/{id}", name: "removePasskey", credential: userSession,
			summary: "Remove a passkey",
			detail:  "Ends the user's other sessions. The last way to sign in is not removed. " + freshness,
			faults:  []fault{faultAge, faultConflict, faultCredentials, faultNotFound},
		}, removePasskey),
	}
}

// jsonObject is an object that is handed on as it is: what the browser's
// credential API takes or gives.
type jsonObject json.RawMessage

func (o jsonObject) MarshalJSON() ([]byte, error) { return json.RawMessage(o).MarshalJSON() }

func (o *jsonObject) decode(path string, text []byte) error {
	switch {
	case isNull(text):
		return nil
	case text[0] != '{':
		return bad(path, "must be an object, not "+kindOf(text))
	}
	*o = append(jsonObject(nil), text...)
	return nil
}

func (o *jsonObject) element() reflect.Type { return reflect.TypeFor[map[string]any]() }

type passkeyOptions struct {
	PublicKey jsonObject `json:"publicKey" doc:"For navigator.credentials.create or get, in the JSON of PublicKeyCredential.parseCreationOptionsFromJSON and parseRequestOptionsFromJSON."`
}

// begun sets the cookie and shows the options.
func (c *call) begun(ceremony *directory.PasskeyCeremony) *passkeyOptions {
	http.SetCookie(c.w, ceremony.Cookie)
	return &passkeyOptions{jsonObject(ceremony.Options)}
}

type passkeyRequest struct {
	Credential jsonObject `json:"credential" required:"true" doc:"What navigator.credentials gave: PublicKeyCredential.toJSON()."`
	ClientID   string     `json:"client_id" doc:"The application; default the configured one."`
	Transport  string     `json:"transport" enum:"cookie,body" doc:"How the session token travels: in a cookie (default), or in the body as session_token, for native apps."`
}

func (c *call) withPasskey(in *passkeyRequest) (directory.SignIn, error) {
	request, err := c.signIn(&signInRequest{ClientID: in.ClientID})
	request.Credential = in.Credential
	return request, err
}

func beginPasskeySignIn(c *call, _ *struct{}) (*passkeyOptions, error) {
	ceremony, err := c.users.BeginPasskeySignIn(c.ctx(), c.r)
	if err != nil {
		return nil, err
	}
	return c.begun(ceremony), nil
}

func passkeySignIn(c *call, in *passkeyRequest) (*grant, error) {
	request, err := c.withPasskey(in)
	if err != nil {
		return nil, err
	}
	g, err := c.users.SignInWithPasskey(c.ctx(), request)
	if err != nil {
		return nil, err
	}
	return c.started(g, in.Transport), nil
}

type passkeySignUpRequest struct {
	Email string `json:"email" required:"true"`
}

func beginPasskeySignUp(c *call, in *passkeySignUpRequest) (*passkeyOptions, error) {
	ceremony, err := c.users.BeginPasskeySignUp(c.ctx(), in.Email, c.r)
	if err != nil {
		return nil, err
	}
	return c.begun(ceremony), nil
}

func passkeySignUp(c *call, in *passkeyRequest) (*grant, error) {
	request, err := c.withPasskey(in)
	if err != nil {
		return nil, err
	}
	g, _, err := c.users.SignUpWithPasskey(c.ctx(), request)
	if err != nil {
		return nil, err
	}
	return c.started(g, in.Transport), nil
}

// passkey is a passkey as the wire shows it.
type passkey struct {
	ID         string   `json:"id" doc:"The credential id, base64url."`
	Name       string   `json:"name"`
	CreatedAt  unixTime `json:"created_at"`
	LastUsedAt unixTime `json:"last_used_at" doc:"0: it was not used yet."`
	BackedUp   bool     `json:"backed_up" doc:"It is synchronised between the user's devices."`
}

func shownPasskey(p *directory.Passkey) passkey {
	return passkey{p.ID, p.Name, unix(p.CreatedAt), unix(p.LastUsedAt), p.BackedUp}
}

type passkeyList struct {
	Passkeys []passkey `json:"passkeys" doc:"Oldest first."`
}

func listPasskeys(c *call, _ *struct{}) (*passkeyList, error) {
	if err := c.rightCookie(); err != nil {
		return nil, err
	}
	all, err := c.users.Passkeys(c.ctx(), c.token)
	if err != nil {
		return nil, passkeyError(err)
	}
	list := &passkeyList{Passkeys: make([]passkey, 0, len(all))}
	for i := range all {
		list.Passkeys = append(list.Passkeys, shownPasskey(&all[i]))
	}
	return list, nil
}

func beginAddPasskey(c *call, _ *struct{}) (*passkeyOptions, error) {
	if err := c.rightCookie(); err != nil {
		return nil, err
	}
	ceremony, err := c.users.BeginAddPasskey(c.ctx(), c.token, c.r)
	if err != nil {
		return nil, passkeyError(err)
	}
	return c.begun(ceremony), nil
}

type addPasskeyRequest struct {
	Credential jsonObject `json:"credential" required:"true" doc:"What navigator.credentials.create gave: PublicKeyCredential.toJSON()."`
	Name       string     `json:"name" doc:"The user's name for it, at most 64 bytes; left out, it is numbered."`
}

func addPasskey(c *call, in *addPasskeyRequest) (*passkey, error) {
	if err := c.rightCookie(); err != nil {
		return nil, err
	}
	p, err := c.users.AddPasskey(c.ctx(), c.token, in.Name, in.Credential, c.r)
	if err != nil {
		return nil, passkeyError(err)
	}
	shown := shownPasskey(&p)
	return &shown, nil
}

type renamePasskeyRequest struct {
	ID   string `path:"id" doc:"The passkey's id."`
	Name string `json:"name" required:"true" doc:"At most 64 bytes of printable text."`
}

func renamePasskey(c *call, in *renamePasskeyRequest) (*passkey, error) {
	if err := c.rightCookie(); err != nil {
		return nil, err
	}
	p, err := c.users.RenamePasskey(c.ctx(), c.token, in.ID, in.Name)
	if err != nil {
		return nil, passkeyError(err)
	}
	shown := shownPasskey(&p)
	return &shown, nil
}

type removePasskeyRequest struct {
	ID string `path:"id" doc:"The passkey's id."`
}

func removePasskey(c *call, in *removePasskeyRequest) (none, error) {
	if err := c.rightCookie(); err != nil {
		return none{}, err
	}
	return none{}, passkeyError(c.users.RemovePasskey(c.ctx(), c.token, in.ID))
}

// passkeyError gives the errors of passkeys texts of their own.
func passkeyError(err error) error {
	switch {
	case errors.Is(err, directory.ErrLastPasskey):
		return &conflictError{"id", "This is the user's last way to sign in. Set a password or add another passkey first."}
	case errors.Is(err, directory.ErrTooManyPasskeys):
		return &conflictError{"credential", "The user has as many passkeys as are kept. Remove one first."}
	case errors.Is(err, counterfoil.ErrNotFound):
		return &notFoundError{"There is no such passkey."}
	}
	return err
}

// stepUpOptions are the ways in which the user can step up.
type stepUpOptions struct {
	PublicKey *jsonObject `json:"publicKey" doc:"For navigator.credentials.get, as JSON; null when the user has no passkey."`
	Password  bool        `json:"password" doc:"The user has a password."`
}

func beginStepUp(c *call, _ *struct{}) (*stepUpOptions, error) {
	if err := c.rightCookie(); err != nil {
		return nil, err
	}
	ways, err := c.users.BeginStepUp(c.ctx(), c.token, c.r)
	if err != nil {
		return nil, notHere(err)
	}
	out := &stepUpOptions{Password: ways.Password}
	if ways.Passkey != nil {
		out.PublicKey = &c.begun(ways.Passkey).PublicKey
	}
	return out, nil
}

type stepUpRequest struct {
	Password   password   `json:"password" doc:"The user's password, or credential."`
	Credential jsonObject `json:"credential" doc:"What navigator.credentials.get gave for POST /step-up/begin: PublicKeyCredential.toJSON()."`
}

func stepUp(c *call, in *stepUpRequest) (*grant, error) {
	switch {
	case in.Password == "" && in.Credential == nil:
		return nil, bad("password", "is required, or credential")
	case in.Password != "" && in.Credential != nil:
		return nil, bad("credential", "cannot be given together with password")
	}
	if err := c.rightCookie(); err != nil {
		return nil, err
	}
	var g *counterfoil.Grant
	var err error
	if in.Credential != nil {
		g, err = c.users.StepUpWithPasskey(c.ctx(), c.token, in.Credential, c.r)
	} else {
		g, err = c.users.StepUp(c.ctx(), c.token, string(in.Password), c.r)
	}
	if err != nil {
		return nil, notHere(err)
	}
	return c.granted(g, c.client == ""), nil
}
