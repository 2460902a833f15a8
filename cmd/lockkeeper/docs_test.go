package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const referenceDir = "../../docs/reference"

// TestReferencePagesAreGenerated compares the pages with what "lockkeeper
// docs" prints; "make docs" writes them.
func TestReferencePagesAreGenerated(t *testing.T) {
	root := newRoot(stdio{})
	for name, write := range pages {
		var b strings.Builder
		if err := write(root, &b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		path := filepath.Join(referenceDir, name+".md")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := writePages(root, referenceDir); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != b.String() {
			t.Errorf("%s is not what \"lockkeeper docs %s\" prints (%v): run make docs", path, name, err)
		}
	}
}

// TestReferenceConfigHasEveryKeyAtItsDefault loads the reference and compares
// it with the defaults.
func TestReferenceConfigHasEveryKeyAtItsDefault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lockkeeper.yaml")
	if err := os.WriteFile(file, []byte(referenceYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	for name, pair := range map[string][2]any{
		"listen.tcp": {got.Listen.TCP, want.Listen.TCP}, "listen.unix_mode": {got.Listen.UnixMode, want.Listen.UnixMode},
		"tls": {got.TLS, want.TLS}, "tcp": {got.TCP, want.TCP}, "limits": {got.Limits, want.Limits},
		"journal": {withoutClock(&got.Journal), withoutClock(&want.Journal)},
	} {
		if fmt.Sprint(pair[0]) != fmt.Sprint(pair[1]) {
			t.Errorf("%s: the reference says %v, the default is %v", name, pair[0], pair[1])
		}
	}
	if got.Admin.Listen != want.Admin.Listen || got.Admin.State != want.Admin.State {
		t.Errorf("admin: the reference says %+v, the default is %+v", got.Admin, want.Admin)
	}
	p, _, err := got.loadPolicy()
	if err != nil || p.Profile() != defaultProfile {
		t.Errorf("policy: %v, %v", p, err)
	}
	for _, key := range yamlKeys(reflect.TypeFor[config]()) {
		if !strings.Contains(referenceYAML, key+":") {
			t.Errorf("the reference does not mention the key %s", key)
		}
	}
}

// yamlKeys returns the keys of a struct and of the structs in it; those of a
// token are explained in words.
func yamlKeys(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if tag == "-" || !f.IsExported() {
			continue
		}
		if tag != "" {
			keys = append(keys, tag)
		}
		ft := f.Type
		if ft.Kind() == reflect.Map {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct && strings.HasPrefix(ft.PkgPath(), "lockkeeper/") {
			keys = append(keys, yamlKeys(ft)...)
		}
	}
	return keys
}
