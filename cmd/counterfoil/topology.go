package main

import "github.com/counterfoil/counterfoil/httpapi"

// checkTopology tells of issuer and origins between which browsers carry no
// cookie: nothing else would, and users would be signed out for no reason.
func (s *serveSettings) checkTopology() error {
	warnings, err := httpapi.CheckTopology(s.issuer, s.origins...)
	if err != nil {
		return flagError(err)
	}
	for _, warning := range warnings {
		s.log.Warn(warning)
	}
	return nil
}
