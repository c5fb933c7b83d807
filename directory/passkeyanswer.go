package directory

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/strictjson"
)

// algorithms are those that are offered and taken, best first: COSE numbers of
// ES256, EdDSA, and RS256, which older TPMs know alone.
var algorithms = []webauthncose.COSEAlgorithmIdentifier{
	webauthncose.AlgES256, webauthncose.AlgEdDSA, webauthncose.AlgRS256,
}

// maxAnswer bounds what a browser sends for a passkey.
const maxAnswer = 32 << 10

func badAnswer(why string) error {
	return &counterfoil.FieldError{Field: "credential", Message: "is not what navigator.credentials gave, as JSON: " + why}
}

// clientData is what the browser says it signed for (WebAuthn Level 3,
// section 5.8.1), read by a reader that takes one meaning only.
type clientData struct {
	kind, challenge, origin, topOrigin string
	crossOrigin                        bool
}

func readClientData(text []byte) (c clientData, err error) {
	err = strictjson.Object(text, func(name string, value []byte) (err error) {
		switch name {
		case "type":
			c.kind, err = strictjson.String(value)
		case "challenge":
			c.challenge, err = strictjson.String(value)
		case "origin":
			c.origin, err = strictjson.String(value)
		case "topOrigin":
			c.topOrigin, err = strictjson.String(value)
		case "crossOrigin":
			c.crossOrigin, err = strictjson.Bool(value)
		default:
			switch strictjson.FoldsTo(name) {
			case "type", "challenge", "origin", "toporigin", "crossorigin":
				err = fmt.Errorf("the member %.20q is spelt in two ways", name)
			}
		}
		return err
	})
	return c, err
}

// agrees says whether the library, whose reader is laxer, saw the same.
func (c clientData) agrees(seen *protocol.CollectedClientData) bool {
	return string(seen.Type) == c.kind && seen.Challenge == c.challenge && seen.Origin == c.origin &&
		seen.TopOrigin == c.topOrigin && seen.CrossOrigin == c.crossOrigin
}

// challengeLength is that of 32 bytes in base64url.
const challengeLength = 43

// known checks what needs no ceremony: that the challenge can be one of ours.
func (c clientData) known() error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(c.challenge)
	if err != nil || len(c.challenge) != challengeLength || len(raw) != 32 {
		return errNoCeremony
	}
	return nil
}

// check is for what the library compares more loosely than needed: origins
// exactly as configured, and never from within a frame of another origin.
func (c clientData) check(p *RelyingParty) error {
	switch {
	case !slices.Contains(p.Origins, c.origin):
		return fmt.Errorf("origin %.100q is not one of the relying party's", c.origin)
	case c.crossOrigin || c.topOrigin != "":
		return fmt.Errorf("used in a frame of another origin, top origin %.100q", c.topOrigin)
	}
	return nil
}

func strictAnswer(text []byte) error {
	if len(text) == 0 {
		return &counterfoil.FieldError{Field: "credential", Message: "is required"}
	}
	if len(text) > maxAnswer {
		return badAnswer("it is longer than 32 KiB")
	}
	if err := strictjson.Object(text, nil); err != nil {
		return badAnswer(err.Error())
	}
	return nil
}

// assertion is the answer of navigator.credentials.get, parsed and not verified.
type assertion struct {
	id     string // of the credential
	handle string // user handle; empty when there is none
	client clientData
	parsed *protocol.ParsedCredentialAssertionData
}

func parseAssertion(text []byte) (*assertion, error) {
	if err := strictAnswer(text); err != nil {
		return nil, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(text)
	if err != nil {
		return nil, badAnswer(detail(err))
	}
	client, err := readClientData(parsed.Raw.AssertionResponse.ClientDataJSON)
	if err != nil || !client.agrees(&parsed.Response.CollectedClientData) {
		return nil, badAnswer("clientDataJSON cannot be read")
	}
	if err := client.known(); err != nil {
		return nil, err
	}
	return &assertion{
		id: base64.RawURLEncoding.EncodeToString(parsed.RawID), handle: string(parsed.Response.UserHandle),
		client: client, parsed: parsed,
	}, nil
}

// verify checks an assertion with a user's passkey (WebAuthn Level 3, section
// 7.2, steps 6 to 22).
func (a *assertion) verify(p *RelyingParty, challenge string, u *User, key *Passkey) error {
	if a.handle != "" && a.handle != u.ID {
		return passkeyRefused("the user handle is another user's")
	}
	if err := a.client.check(p); err != nil {
		return passkeyRefused(err.Error())
	}
	err := a.parsed.Verify(challenge, p.ID, "", p.Origins, nil, nil, protocol.TopOriginExplicitVerificationMode,
		false, true, true, key.PublicKey, protocol.SignaturePolicy{})
	if err != nil {
		return passkeyRefused(detail(err))
	}
	flags := a.parsed.Response.AuthenticatorData.Flags
	switch {
	case flags.HasBackupEligible() != key.BackupEligible:
		return passkeyRefused("backup eligibility changed")
	case flags.HasBackupState() && !flags.HasBackupEligible():
		return passkeyRefused("backed up, and not eligible for backup")
	}
	return nil
}

// attestation is the answer of navigator.credentials.create, parsed and not verified.
type attestation struct {
	client clientData
	parsed *protocol.ParsedCredentialCreationData
}

func parseAttestation(text []byte) (*attestation, error) {
	if err := strictAnswer(text); err != nil {
		return nil, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(text)
	if err != nil {
		return nil, badAnswer(detail(err))
	}
	client, err := readClientData(parsed.Raw.AttestationResponse.ClientDataJSON)
	if err != nil || !client.agrees(&parsed.Response.CollectedClientData) {
		return nil, badAnswer("clientDataJSON cannot be read")
	}
	if err := client.known(); err != nil {
		return nil, err
	}
	return &attestation{client: client, parsed: parsed}, nil
}

// verify checks a new passkey (section 7.1, steps 7 to 26) and returns it.
func (a *attestation) verify(p *RelyingParty, challenge string) (Passkey, error) {
	wrong := func(why string) (Passkey, error) {
		return Passkey{}, &counterfoil.FieldError{Field: "credential", Message: "is not a passkey that can be used here: " + why}
	}
	if err := a.client.check(p); err != nil {
		return wrong(err.Error())
	}
	// No attestation was asked for, so none is looked at: what browsers and
	// password managers put there all the same proves nothing that we use.
	object := &a.parsed.Response.AttestationObject
	object.Format, object.AttStatement, object.SubStatements = string(protocol.AttestationFormatNone), nil, nil
	var offered []protocol.CredentialParameter
	for _, alg := range algorithms {
		offered = append(offered, protocol.CredentialParameter{Type: protocol.PublicKeyCredentialType, Algorithm: alg})
	}
	_, err := a.parsed.Verify(challenge, p.ID, p.Origins, nil, nil, protocol.TopOriginExplicitVerificationMode,
		false, true, true, nil, offered, protocol.AttestationPolicy{}, protocol.SignaturePolicy{})
	if err != nil {
		return wrong(detail(err))
	}
	data := &object.AuthData
	id, key := data.AttData.CredentialID, data.AttData.CredentialPublicKey
	switch {
	case len(id) < minCredentialID || len(id) > maxCredentialID:
		return wrong("its id must have 16 to 1023 bytes")
	case data.Flags.HasBackupState() && !data.Flags.HasBackupEligible():
		return wrong("it is backed up, and not eligible for backup")
	}
	if why := weakKey(key); why != "" {
		return wrong(why)
	}
	var transports []string
	for _, t := range a.parsed.Response.Transports {
		transports = append(transports, string(t))
	}
	return Passkey{
		ID: base64.RawURLEncoding.EncodeToString(id), PublicKey: bytes.Clone(key), Transports: keptTransports(transports),
		SignCount: data.Counter, BackupEligible: data.Flags.HasBackupEligible(), BackedUp: data.Flags.HasBackupState(),
	}, nil
}

// weakKey says what is wrong with a public key; empty when nothing is (SEC-45).
func weakKey(cose []byte) string {
	if len(cose) > maxPublicKey {
		return "its public key is longer than 1024 bytes"
	}
	key, err := webauthncose.ParsePublicKey(cose)
	if err != nil {
		return "its public key cannot be read"
	}
	if rsa, ok := key.(webauthncose.RSAPublicKeyData); ok {
		modulus := bytes.TrimLeft(rsa.Modulus, "\x00")
		if len(modulus) < 2048/8 || len(modulus) > 4096/8 || modulus[len(modulus)-1]%2 == 0 {
			return "its RSA key must have 2048 to 4096 bits"
		}
		// The library takes 1 too, under which anybody can sign.
		if exponent := bytes.TrimLeft(rsa.Exponent, "\x00"); !bytes.Equal(exponent, []byte{1, 0, 1}) {
			return "its RSA key must have the exponent 65537"
		}
	}
	return ""
}

// detail is the text of the library's error with what it found. It holds no
// secret: challenge and signature are used up.
func detail(err error) string {
	text := err.Error()
	if len(text) > 200 {
		text = text[:200]
	}
	return text
}
