// Package passkeytest is a passkey in software: browser and authenticator in
// one, for tests. Each field of an answer can be made wrong before it is signed.
package passkeytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
)

// Flags of authenticator data (WebAuthn Level 3, section 6.1).
const (
	UserPresent    = 0x01
	UserVerified   = 0x04
	BackupEligible = 0x08
	BackedUp       = 0x10
	attested       = 0x40
)

// Authenticator holds one passkey, which Create replaces.
type Authenticator struct {
	Origin string // of the page
	Flags  byte   // of what it answers
	Count  uint32 // of the next use; 0: it does not count

	RPID   string
	ID     []byte
	Handle []byte // the user handle
	key    *ecdsa.PrivateKey
}

// New is an authenticator in a browser that shows a page of the origin.
func New(origin string) *Authenticator {
	return &Authenticator{Origin: origin, Flags: UserPresent | UserVerified}
}

// Answer is all that an answer is made from.
type Answer struct {
	Type, Challenge, Origin, TopOrigin string
	CrossOrigin                        bool
	ClientData                         []byte // when set, instead of what is made of the above

	RPID       string
	Flags      byte
	Count      uint32
	ID         []byte // as attested
	ReportedID []byte // as the browser says it
	Handle     []byte
	Algorithm  int    // of the public key, as COSE says it
	Format     string // of the attestation
	Key        *ecdsa.PrivateKey
	PublicKey  []byte // when set, instead of the COSE key
	Tamper     func(signature []byte) []byte
	Members    map[string]any // added to the credential
}

type options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
}

// Create answers as navigator.credentials.create does. change may be nil.
func (a *Authenticator) Create(text json.RawMessage, change func(*Answer)) ([]byte, error) {
	var o options
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	handle, err := decode(o.User.ID)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a.RPID, a.Handle, a.key, a.ID = o.RP.ID, handle, key, make([]byte, 32)
	rand.Read(a.ID)
	w := a.answer("webauthn.create", o.Challenge)
	w.Flags |= attested
	if change != nil {
		change(&w)
	}
	if w.PublicKey == nil {
		if w.PublicKey, err = coseKey(w.Key, w.Algorithm); err != nil {
			return nil, err
		}
	}
	data := w.authenticatorData()
	data = append(data, make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(w.ID)))
	data = append(append(data, w.ID...), w.PublicKey...)
	object := cborMap(
		cborText("fmt"), cborText(w.Format),
		cborText("attStmt"), cborMap(),
		cborText("authData"), cborBytes(data))
	return w.credential(map[string]any{
		"clientDataJSON": encode(w.clientData()), "attestationObject": encode(object),
		"transports": []string{"internal", "hybrid", "carrier-pigeon"},
	})
}

// Get answers as navigator.credentials.get does. change may be nil.
func (a *Authenticator) Get(text json.RawMessage, change func(*Answer)) ([]byte, error) {
	var o options
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	w := a.answer("webauthn.get", o.Challenge)
	if change != nil {
		change(&w)
	}
	if a.Count > 0 {
		a.Count++
	}
	data, client := w.authenticatorData(), w.clientData()
	hash := sha256.Sum256(client)
	signed := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, w.Key, signed[:])
	if err != nil {
		return nil, err
	}
	if w.Tamper != nil {
		signature = w.Tamper(signature)
	}
	response := map[string]any{"clientDataJSON": encode(client), "authenticatorData": encode(data), "signature": encode(signature)}
	if w.Handle != nil {
		response["userHandle"] = encode(w.Handle)
	}
	return w.credential(response)
}

func (a *Authenticator) answer(kind, challenge string) Answer {
	return Answer{
		Type: kind, Challenge: challenge, Origin: a.Origin, RPID: a.RPID, Flags: a.Flags, Count: a.Count,
		ID: a.ID, ReportedID: a.ID, Handle: a.Handle, Algorithm: -7, Format: "none", Key: a.key,
	}
}

func (w *Answer) clientData() []byte {
	if w.ClientData != nil {
		return w.ClientData
	}
	members := map[string]any{"type": w.Type, "challenge": w.Challenge, "origin": w.Origin, "crossOrigin": w.CrossOrigin}
	if w.TopOrigin != "" {
		members["topOrigin"] = w.TopOrigin
	}
	return mustJSON(members)
}

func (w *Answer) authenticatorData() []byte {
	hash := sha256.Sum256([]byte(w.RPID))
	return binary.BigEndian.AppendUint32(append(hash[:], w.Flags), w.Count)
}

func (w *Answer) credential(response map[string]any) ([]byte, error) {
	members := map[string]any{
		"id": encode(w.ReportedID), "rawId": encode(w.ReportedID), "type": "public-key", "response": response,
		"clientExtensionResults": map[string]any{}, "authenticatorAttachment": "platform",
	}
	for name, value := range w.Members {
		members[name] = value
	}
	return json.Marshal(members)
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func decode(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // of strings and booleans
	}
	return text
}
