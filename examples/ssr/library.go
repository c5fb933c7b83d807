package main

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/counterfoil/counterfoil/verify"
)

// library knows who has which book, in memory: the sessions are the example.
type library struct {
	mu        sync.Mutex
	readers   map[string]string // book to the subject who has it
	addresses map[string]string // subject to where the books are sent
}

func newLibrary() *library {
	return &library{readers: map[string]string{}, addresses: map[string]string{}}
}

var books = []string{"Two Years Before the Mast", "The Log from the Sea of Cortez", "Sailing Alone Around the World", "The Voyage of the Beagle"}

type homePage struct {
	Email     string
	Librarian bool
	Session   string
	Mine      []string
	Free      []string
	Address   string
}

// home is what a reader sees first.
func (a *app) home(w http.ResponseWriter, r *http.Request, claims *verify.Claims) error {
	user, err := a.users.Get(r.Context(), claims.Subject)
	if err != nil {
		return err
	}
	page := homePage{Email: user.Email, Librarian: claims.HasRole("librarian"), Session: claims.SessionID}
	l := a.library
	l.mu.Lock()
	page.Address = l.addresses[claims.Subject]
	for _, book := range books {
		switch l.readers[book] {
		case claims.Subject:
			page.Mine = append(page.Mine, book)
		case "":
			page.Free = append(page.Free, book)
		}
	}
	l.mu.Unlock()
	return a.show(w, "home", page)
}

func (a *app) borrow(w http.ResponseWriter, r *http.Request, claims *verify.Claims) error {
	return a.move(w, r, "", claims.Subject)
}

func (a *app) giveBack(w http.ResponseWriter, r *http.Request, claims *verify.Claims) error {
	return a.move(w, r, claims.Subject, "")
}

// move gives a book from one to another; nobody is the library itself. Who
// comes too late finds the page as it is.
func (a *app) move(w http.ResponseWriter, r *http.Request, from, to string) error {
	book := r.PostFormValue("book")
	a.library.mu.Lock()
	if slices.Contains(books, book) && a.library.readers[book] == from {
		a.library.readers[book] = to
	}
	a.library.mu.Unlock()
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// moveTo changes where the books are sent. Its route wants a proof of the last
// ten minutes; by the time it runs, the user has given it.
func (a *app) moveTo(w http.ResponseWriter, r *http.Request, claims *verify.Claims) error {
	address := []rune(r.PostFormValue("address"))
	a.library.mu.Lock()
	a.library.addresses[claims.Subject] = string(address[:min(len(address), 120)])
	a.library.mu.Unlock()
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

type loan struct{ Book, Email, Address string }

// desk shows the librarians who has what.
func (a *app) desk(w http.ResponseWriter, r *http.Request, _ *verify.Claims) error {
	loans, err := a.loans(r.Context())
	if err != nil {
		return err
	}
	return a.show(w, "desk", loans)
}

func (a *app) loans(ctx context.Context) (loans []loan, err error) {
	a.library.mu.Lock()
	defer a.library.mu.Unlock()
	for _, book := range books {
		subject := a.library.readers[book]
		if subject == "" {
			continue
		}
		user, err := a.users.Get(ctx, subject)
		if err != nil {
			return nil, err
		}
		loans = append(loans, loan{book, user.Email, a.library.addresses[subject]})
	}
	return loans, nil
}
