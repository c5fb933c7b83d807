package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/counterfoil/counterfoil"
)

// The application's own table. id is the subject of sessions and tokens: never
// given to another user, unlike an e-mail address.
const usersTable = `CREATE TABLE IF NOT EXISTS users (
	id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE COLLATE NOCASE, password TEXT NOT NULL, role TEXT NOT NULL)`

var bcryptCost = 12 // less in the tests

var errEmailTaken = errors.New("this e-mail address has an account already")

func createUsers(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, usersTable)
	return err
}

func (a *app) addUser(ctx context.Context, email, password string) (id string, err error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcryptCost)
	if err != nil {
		return "", err
	}
	id = rand.Text()
	result, err := a.db.ExecContext(ctx, `INSERT INTO users
		SELECT $1, $2, $3, CASE WHEN EXISTS (SELECT 1 FROM users) THEN '' ELSE 'admin' END -- the first one
		ON CONFLICT DO NOTHING`, id, strings.TrimSpace(email), string(hash))
	if err != nil {
		return "", err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return "", errors.Join(errEmailTaken, err)
	}
	return id, nil
}

// userID finds an account. For an unknown address it returns an id that no
// user has: the sign-in goes on as for any other, and takes as long.
func (a *app) userID(ctx context.Context, email string) (id string, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT id FROM users WHERE email = $1`, strings.TrimSpace(email)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "nobody", nil
	}
	return id, err
}

// nobodysPassword is compared where there is no user.
var nobodysPassword = sync.OnceValues(func() (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), bcryptCost)
	return string(hash), err
})

// checkPassword returns the hash that the password matched. Limit how often it
// can be called, by account and by address, before others can reach it.
func (a *app) checkPassword(ctx context.Context, id, password string) (hash string, ok bool, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT password FROM users WHERE id = $1`, id).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		hash, err = nobodysPassword()
	}
	if err != nil {
		return "", false, err
	}
	return hash, bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil, nil
}

// claims is asked at each mint, so tokens carry the roles that hold now.
func (a *app) claims(ctx context.Context, s counterfoil.Session) (counterfoil.Claims, error) {
	var role string
	err := a.db.QueryRowContext(ctx, `SELECT role FROM users WHERE id = $1`, s.Subject).Scan(&role)
	if err != nil || role == "" {
		return counterfoil.Claims{}, err
	}
	return counterfoil.Claims{Roles: []string{role}}, nil
}
