package repotest

import (
	"slices"
	"strings"
	"testing"
)

// layer is a package, below the module's root, and the packages of this module
// that it may import.
type layer struct {
	importer string
	allowed  []string
}

// layers says which packages of this module each package may import: imports go
// downward only. A name that ends in /... stands for a package and all below
// it. A package that is not here has no place in the layering yet: give it one.
var layers = []layer{
	{"inspect/lex", nil},
	{"inspect", []string{"inspect/lex", "internal/sqlstate"}},
	{"inspect/pgquery", []string{"inspect", "inspect/lex"}},
	{"inspect/catalog", []string{"inspect", "inspect/lex"}},

	{"policy", []string{"inspect", "policy/checks", "internal/sqlstate"}},
	{"policy/checks", []string{"inspect", "internal/sqlstate"}},

	{"proxy/wire", []string{"internal/sqlstate"}},
	{"proxy/scram", nil},
	{"proxy/auth", []string{"proxy/scram", "proxy/wire"}},
	{"proxy/session", []string{"inspect", "policy", "proxy/wire", "internal/journal", "internal/sqlstate"}},
	{"proxy/engine", []string{"inspect", "policy", "proxy/wire", "proxy/session", "internal/journal", "internal/sqlstate"}},
	{"proxy", []string{"inspect", "inspect/catalog", "policy", "proxy/...", "internal/journal", "internal/peercred", "internal/sqlstate"}},

	{"admin/locks", []string{"inspect", "policy", "proxy", "internal/sqlstate"}},
	{"admin/control", []string{"inspect", "inspect/catalog", "policy", "proxy", "internal/journal", "internal/sqlstate"}},
	{"admin/api", []string{"inspect", "policy", "proxy", "admin/control", "admin/locks", "internal/journal", "internal/sqlstate"}},
	{"admin/client", []string{"inspect", "policy", "proxy", "admin/api", "admin/control", "admin/locks", "internal/journal"}},
	{"admin/takeover", []string{"policy", "proxy", "admin/control", "internal/journal", "internal/peercred"}},
	{"admin/console", []string{"inspect", "policy", "proxy", "proxy/wire", "admin/api", "admin/control", "admin/locks", "internal/journal", "internal/peercred", "internal/sqlstate"}},
	{"admin", []string{"inspect", "policy", "proxy", "admin/...", "internal/journal", "internal/sqlstate"}},

	{"cmd/lockkeeper", []string{"inspect/...", "policy/...", "proxy/...", "admin/...", "internal/journal", "internal/sqlstate"}},
	{"bench", []string{"inspect/...", "policy/...", "proxy/...", "internal/pgtest"}},
	{"bench/idle", []string{"internal/pgtest"}},
	{"bench/oltp", []string{"internal/pgtest"}},

	{"internal/faults", nil},
	{"internal/journal", []string{"inspect"}},
	{"internal/peercred", nil},
	{"internal/sqlstate", nil},
	{"internal/pgtest", []string{"internal/sqlstate"}},
	{"internal/testdata", nil},
	{"internal/conformance", []string{"internal/pgtest"}},
	{"internal/demo", []string{"internal/pgtest"}},
	{"internal/repotest", []string{"policy"}},
}

// owners are modules and packages that only one package may import, whoever is
// above it.
var owners = map[string]string{
	"github.com/pganalyze/pg_query_go/v5": "inspect/pgquery", // cgo stops there
	"modernc.org/sqlite":                  "internal/journal",
	"github.com/spf13/cobra":              "cmd/lockkeeper",
}

// impure is what the packages of policy may not import: they do no I/O.
var impure = []string{"net", "os", "io/fs", "database/sql", "log", "syscall"}

func TestLayering(t *testing.T) {
	for _, p := range packages(t) {
		i := slices.IndexFunc(layers, func(l layer) bool { return l.importer == p.dir() })
		if i < 0 {
			t.Errorf("%s is not in the table of layers: say what it may import", p.dir())
			continue
		}
		for _, imported := range p.Imports {
			checkImport(t, p.dir(), imported, layers[i].allowed)
		}
	}
}

func checkImport(t *testing.T, importer, imported string, allowed []string) {
	t.Helper()
	if rest, ours := strings.CutPrefix(imported, modulePath+"/"); ours {
		if !slices.ContainsFunc(allowed, func(pattern string) bool { return covers(pattern, rest) }) {
			t.Errorf("%s imports %s, which the table of layers does not allow", importer, rest)
		}
		return
	}
	for name, owner := range owners {
		if covers(name+"/...", imported) && importer != owner {
			t.Errorf("%s imports %s, which only %s may", importer, imported, owner)
		}
	}
	if covers("policy/...", importer) {
		for _, name := range impure {
			if covers(name+"/...", imported) && imported != "net/netip" {
				t.Errorf("%s imports %s: policy does no I/O", importer, imported)
			}
		}
	}
}

// covers reports whether pattern, a path that may end in /..., stands for path.
func covers(pattern, path string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == base || strings.HasPrefix(path, base+"/")
	}
	return pattern == path
}

// TestTestsStayInLayer keeps the tests of the layers that build without cgo and
// without a server that way.
func TestTestsStayInLayer(t *testing.T) {
	for _, p := range packages(t) {
		if !covers("policy/...", p.dir()) {
			continue
		}
		for _, imported := range append(p.TestImports, p.XTestImports...) {
			if covers(modulePath+"/proxy/...", imported) || covers(modulePath+"/admin/...", imported) {
				t.Errorf("a test of %s imports %s, which is above it", p.dir(), imported)
			}
		}
	}
}
