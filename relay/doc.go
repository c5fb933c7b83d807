// Package relay serves the feed of revocations on: a relay follows an
// authority, or another relay, as a verifier does, and is for its own readers
// what the authority was. A verifier whose Config.Authority points at a relay
// needs to know nothing of it.
//
//	r, err := relay.New(ctx, relay.Config{
//		Issuer:      "https://app.example",
//		Authorities: []string{"http://auth-1.internal:8700", "http://auth-2.internal:8700"},
//		APIKey:      os.Getenv("COUNTERFOIL_API_KEY"),
//	})
//	defer r.Close()
//	http.Serve(listener, r)
//
// What it says of its age counts back to the last full read of the authority's
// store, through any number of relays. While what it follows is away it goes
// on serving, and says how old it is. It decides nothing: live checks go
// through to the authority, and so do the questions about readers' API keys,
// whose answers it keeps for a minute.
//
// Positions are those of the authority, so a reader may change between the
// authority and relays and miss nothing. docs/relay.md says how to run one.
package relay
