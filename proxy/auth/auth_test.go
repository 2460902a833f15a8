package auth_test

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lockkeeper/proxy/auth"
	"lockkeeper/proxy/scram"
	"lockkeeper/proxy/wire"
)

const (
	// verifier is of the password "pencil".
	verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	md5Hash  = "md50123456789abcdef0123456789abcdef"
)

func TestUserlistsAreReadAsPgBouncerReadsThem(t *testing.T) {
	u, err := auth.ParseUserlist("u", []byte("; comment\n\n\"odoo\" \""+verifier+"\"\r\n  \"old\" \""+md5Hash+"\" \"more\" is passed over\n"+
		"\"say \"\"hi\"\"\"\t\"a \"\"quoted\"\" word\" ; too\n\"empty\" \"\"\n\"upper\" \"MD50123456789ABCDEF0123456789ABCDEF\""))
	if err != nil {
		t.Fatal(err)
	}
	for user, kind := range map[string]string{"odoo": "SCRAM-SHA-256", "old": "md5", `say "hi"`: "password", "empty": "password", "upper": "password"} {
		if s := u.Secret(user); s == nil || s.Kind() != kind {
			t.Errorf("%s: %v, want %s", user, s, kind)
		}
	}
	if u.Secret("nobody") != nil || u.Len() != 5 || u.Kinds()["password"] != 3 {
		t.Errorf("%d users, kinds %v", u.Len(), u.Kinds())
	}
}

func TestMistakesInUserlistsHaveLinesAndNoSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"odoo secret1":                                     `u:1: "user" "secret" expected`,
		"\n\"odoo\"":                                       `u:2: user "odoo": a secret in double quotes expected`,
		"\"odoo\" secret1":                                 `u:1: user "odoo": a secret in double quotes expected`,
		"\"odoo\" \"secret1":                               `u:1: user "odoo": a secret in double quotes expected`,
		"\"\" \"secret1\"":                                 `u:1: the user's name is empty`,
		"\"a\" \"secret1\"\n\"a\" \"secret1\"":             `u:2: user "a" is on line 1 already`,
		"\"a\" \"SCRAM-SHA-256$secret1\"":                  `u:1: user "a": not of the form`,
		"\"a\" \"" + strings.Repeat("secret1", 300) + "\"": `u:1: user "a": the secret is longer than`,
		strings.Repeat("x\n", 50):                          "and perhaps more",
	} {
		_, err := auth.ParseUserlist("u", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret1") {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzUserlist(f *testing.F) {
	f.Add([]byte("; comment\n\"odoo\" \"" + verifier + "\"\n\"a\"\"b\" \"x\""))
	f.Add([]byte("\"odoo\" \"md5"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := auth.ParseUserlist("u", data)
		if (u == nil) == (err == nil) {
			t.Errorf("%v and %v", u, err)
		}
	})
}

func TestSecretsAreNotPrinted(t *testing.T) {
	for _, text := range []string{"pencil", verifier, md5Hash} {
		s := secret(t, text)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if got := fmt.Sprintf(verb, s); got != "[secret]" {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
}

func secret(t *testing.T, text string) *auth.Secret {
	t.Helper()
	s, err := auth.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Who asks twice for a user that there is not must not hear two salts, nor one
// salt for two users; and a password's salt is of the same kind.
func TestMadeUpVerifiersLookLikeReal(t *testing.T) {
	m := auth.NewMock()
	if a, b := m.Server("a", nil, nil), m.Server("a", nil, nil); string(a.Verifier.Salt) != string(b.Verifier.Salt) || !a.Doomed {
		t.Errorf("salts %x and %x", a.Verifier.Salt, b.Verifier.Salt)
	}
	if a, b := m.Server("a", nil, nil), m.Server("b", nil, nil); string(a.Verifier.Salt) == string(b.Verifier.Salt) {
		t.Error("one salt for two users")
	}
	if a, b := m.Server("a", nil, nil), auth.NewMock().Server("a", nil, nil); string(a.Verifier.Salt) == string(b.Verifier.Salt) {
		t.Error("one salt of two lockkeepers with different secrets")
	}
	password := secret(t, "pencil")
	if err := m.Prepare("a", password); err != nil {
		t.Fatal(err)
	}
	known, unknown := m.Server("a", password, nil), m.Server("a", nil, nil)
	if known.Doomed || string(known.Verifier.Salt) != string(unknown.Verifier.Salt) || known.Verifier.Iterations != unknown.Verifier.Iterations {
		t.Error("a password's user can be told from one that there is not")
	}
	if !m.Server("a", secret(t, md5Hash), nil).Doomed {
		t.Error("an MD5 hash will do")
	}
}

func TestPasswordsThatHaveNotChangedAreNotDerivedAgain(t *testing.T) {
	m := auth.NewMock()
	read := func(text string, before *auth.Userlist) *auth.Userlist {
		u, err := auth.ParseUserlist("u", []byte(text))
		if err == nil {
			err = u.Prepare(m, before)
		}
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	before := read("\"a\" \"one\"\n\"b\" \"two\"", nil)
	after := read("\"a\" \"one\"\n\"b\" \"three\"", before)
	if after.Secret("a") != before.Secret("a") || after.Secret("b") == before.Secret("b") {
		t.Error("the wrong ones were kept")
	}
	if after.Prepare(m, nil) != nil || m.Server("b", after.Secret("b"), nil).Doomed {
		t.Error("the new one was not derived")
	}
}

// request is an Authentication message of a server.
func request(kind uint32, data string) wire.Message {
	return wire.Append(nil, 'R', string(binary.BigEndian.AppendUint32(nil, kind)), data)
}

func TestAnswersToServers(t *testing.T) {
	hashed := func(password, salt string) string {
		inner := md5.Sum([]byte(password + "odoo"))
		outer := md5.Sum([]byte(hex.EncodeToString(inner[:]) + salt))
		return "md5" + hex.EncodeToString(outer[:]) + "\x00"
	}
	of := md5.Sum([]byte("0123456789abcdef0123456789abcdefsalt"))
	for name, tt := range map[string]struct {
		secret  string
		private bool
		kind    uint32
		data    string
		want    string
		err     error
	}{
		"password over TLS":            {"pencil", true, 3, "", "pencil\x00", nil},
		"password in the clear":        {"pencil", false, 3, "", "", auth.ErrCleartext},
		"password of a hash":           {md5Hash, true, 3, "", "", auth.ErrNoPassword},
		"password of a SCRAM secret":   {verifier, true, 3, "", "", auth.ErrNoPassword},
		"md5 of a password":            {"pencil", false, 5, "salt", hashed("pencil", "salt"), nil},
		"md5 of a hash":                {md5Hash, false, 5, "salt", "md5" + hex.EncodeToString(of[:]) + "\x00", nil},
		"md5 of a SCRAM secret":        {verifier, true, 5, "salt", "", auth.ErrNoPassword},
		"md5 with a strange salt":      {"pencil", true, 5, "sal", "", auth.ErrUnexpected},
		"SCRAM of a hash":              {md5Hash, true, 10, "SCRAM-SHA-256\x00\x00", "", auth.ErrNoPassword},
		"SCRAM of a secret, unproven":  {verifier, true, 10, "SCRAM-SHA-256\x00\x00", "", auth.ErrNoPassword},
		"a mechanism that is unknown":  {"pencil", true, 10, "OAUTHBEARER\x00\x00", "", auth.ErrMethod},
		"a list that does not end":     {"pencil", true, 10, "SCRAM-SHA-256", "", auth.ErrUnexpected},
		"GSSAPI":                       {"pencil", true, 7, "", "", auth.ErrMethod},
		"a proof that was not begun":   {"pencil", true, 11, "r=a,s=AAAA,i=1", "", auth.ErrUnexpected},
		"a signature without exchange": {"pencil", true, 12, "v=AAAA", "", auth.ErrUnexpected},
	} {
		l := auth.NewLogin(auth.Credential{User: "odoo", Secret: secret(t, tt.secret)}, auth.Channel{Private: tt.private})
		answer, done, err := l.Answer(request(tt.kind, tt.data))
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) || done || err == nil && string(wire.Message(answer).Body()) != tt.want {
			t.Errorf("%s: %q, %v, %v", name, answer, done, err)
		}
	}
	if _, done, err := auth.NewLogin(auth.Credential{User: "odoo"}, auth.Channel{}).Answer(request(0, "")); err != nil || !done {
		t.Errorf("a server that asks for nothing: %v, %v", done, err)
	}
	if _, _, err := auth.NewLogin(auth.Credential{User: "odoo"}, auth.Channel{Private: true}).Answer(request(3, "")); !errors.Is(err, auth.ErrNoPassword) {
		t.Errorf("no secret at all: %v", err)
	}
}

// A server that has begun an exchange has to end it, with its signature: else
// it may be anybody.
func TestServersHaveToProveThemselves(t *testing.T) {
	begin := func() *auth.Login {
		l := auth.NewLogin(auth.Credential{User: "odoo", Secret: secret(t, "pencil")}, auth.Channel{Private: true})
		if _, _, err := l.Answer(request(10, "SCRAM-SHA-256\x00\x00")); err != nil {
			t.Fatal(err)
		}
		return l
	}
	for name, m := range map[string]wire.Message{"AuthenticationOk": request(0, ""), "a password": request(3, ""), "another exchange": request(10, "SCRAM-SHA-256\x00\x00")} {
		if answer, done, err := begin().Answer(m); !errors.Is(err, auth.ErrUnexpected) || done || answer != nil {
			t.Errorf("%s in the middle: %v, %v", name, done, err)
		}
	}
	if _, _, err := begin().Answer(request(12, "v=AAAA")); !errors.Is(err, scram.ErrMalformed) {
		t.Errorf("a signature before the proof: %v", err)
	}
	if _, _, err := begin().Answer(wire.Append(nil, 'R', "\x00")); !errors.Is(err, auth.ErrUnexpected) {
		t.Errorf("a message that is too short: %v", err)
	}
}

func TestSASLInitialResponses(t *testing.T) {
	for body, want := range map[string]string{
		"SCRAM-SHA-256\x00\x00\x00\x00\x03abc": "SCRAM-SHA-256 abc",
		"X\x00\x00\x00\x00\x00":                "X ",
		"X\x00\xff\xff\xff\xff":                "X nil",
		"X\x00\xff\xff\xff\xffabc":             "error",
		"X\x00\x00\x00\x00\x04abc":             "error",
		"X\x00\x00\x00\x00\x02abc":             "error",
		"X\x00\x80\x00\x00\x00":                "error",
		"X\x00\x00":                            "error",
		"X":                                    "error",
		"":                                     "error",
	} {
		mechanism, data, err := auth.SASLInitial([]byte(body))
		got := mechanism + " " + string(data)
		switch {
		case err != nil:
			got = "error"
		case data == nil:
			got = mechanism + " nil"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", body, got, want)
		}
	}
}
