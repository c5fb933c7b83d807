package redisstore

import (
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// ErrURL says what the URL of a Redis looks like. It never repeats one, which
// may hold a password.
var ErrURL = errors.New("want redis://USER:PASSWORD@HOST:PORT, rediss:// for TLS, special characters as %XX; of a cluster several HOST:PORT by comma")

// ParseURL reads redis://USER:PASSWORD@HOST:PORT/DB, or rediss:// for TLS.
// Several hosts by comma are servers of one cluster. The port is 6379 and the
// database 0 when left out; a cluster has no other. valkey:// is the same.
func ParseURL(text string) (option rueidis.ClientOption, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return option, ErrURL
	}
	login, rest := cutLast(rest, "@")
	hosts, db, _ := strings.Cut(rest, "/")
	switch scheme {
	case "redis", "valkey":
	case "rediss", "valkeys":
		option.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return option, ErrURL
	}
	if strings.ContainsAny(rest, "?#") {
		return option, ErrURL
	}
	user, password, _ := strings.Cut(login, ":")
	if option.Username, err = url.PathUnescape(user); err != nil {
		return option, ErrURL
	}
	if option.Password, err = url.PathUnescape(password); err != nil {
		return option, ErrURL
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), "6379"
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || name == "" || strings.ContainsAny(name, " /@") {
			return option, ErrURL
		}
		option.InitAddress = append(option.InitAddress, net.JoinHostPort(name, port))
	}
	if db != "" {
		if option.SelectDB, err = strconv.Atoi(db); err != nil || option.SelectDB < 0 {
			return option, ErrURL
		}
	}
	return option, nil
}

// cutLast is strings.Cut at the last separator; without one all is after it.
func cutLast(text, sep string) (before, after string) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):]
	}
	return "", text
}
