package pages

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil/internal/look"
)

//go:embed html/*.html assets
var embedded embed.FS

// templates are the pages, each with the layout around it.
var templates = parseTemplates()

func parseTemplates() map[string]*template.Template {
	shared := template.Must(template.ParseFS(embedded, "html/layout.html", "html/parts.html"))
	set := make(map[string]*template.Template)
	files, err := fs.Glob(embedded, "html/*.html")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		if name := strings.TrimSuffix(path.Base(file), ".html"); name != "layout" && name != "parts" {
			set[name] = template.Must(template.Must(shared.Clone()).ParseFS(embedded, file))
		}
	}
	return set
}

// asset is a file beside the pages.
type asset struct {
	media string
	body  []byte
}

// makeFiles gathers the files that the pages load. Their address holds a hash
// of all of them, so that they can be kept for good.
func (s *site) makeFiles() {
	s.files = make(map[string]asset)
	read := func(from fs.ReadFileFS, folder, name, media string) {
		body, err := from.ReadFile(path.Join(folder, name))
		if err != nil {
			panic(err) // it is embedded
		}
		s.files[name] = asset{media, body}
	}
	read(look.Files, "", "counterfoil.css", "text/css; charset=utf-8")
	read(look.Files, "", "mark.svg", "image/svg+xml")
	read(embedded, "assets", "pages.css", "text/css; charset=utf-8")
	read(embedded, "assets", "pages.js", "text/javascript; charset=utf-8")
	s.files["theme.css"] = asset{"text/css; charset=utf-8", fmt.Appendf(nil,
		"@media not (prefers-color-scheme: dark) {\n%s}\n@media (prefers-color-scheme: dark) {\n%s}\n", s.light.css(), s.dark.css())}
	hash := sha256.New()
	for _, name := range []string{"counterfoil.css", "mark.svg", "pages.css", "pages.js", "theme.css"} {
		hash.Write(s.files[name].body)
	}
	s.version = fmt.Sprintf("%x", hash.Sum(nil)[:6])
}

func (v *visit) serveFile(name string) error {
	file, ok := v.files[name]
	if !ok {
		return errNoPage
	}
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		return v.wrongMethod(route{get: (*visit).showHome})
	}
	h := v.w.Header()
	if v.r.URL.RawQuery == "v="+v.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("Content-Type", file.media)
	h.Set("Content-Length", strconv.Itoa(len(file.body)))
	v.answered = true
	if v.r.Method != http.MethodHead {
		// A write fails when the client has gone; there is nobody left to tell.
		_, _ = v.w.Write(file.body)
	}
	return nil
}
