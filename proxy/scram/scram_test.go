package scram_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lockkeeper/proxy/scram"
)

// The exchange of RFC 7677, section 3: user "user", password "pencil".
const (
	rfcClientNonce = "rOprNGfwEbeRWgbNEkqO"
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcSalt        = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcFirst       = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcAnswer      = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	rfcFinal       = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcSignature   = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func rfcVerifier(t testing.TB) scram.Verifier {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString(rfcSalt)
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := scram.Derive("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestServerSideOfTheRFCsExchange(t *testing.T) {
	s := &scram.Server{Verifier: rfcVerifier(t), Nonce: rfcServerNonce}
	answer, err := s.First(scram.Name, []byte(rfcFirst))
	if err != nil || string(answer) != rfcAnswer {
		t.Fatalf("first: %q, %v", answer, err)
	}
	signature, key, err := s.Final([]byte(rfcFinal))
	if err != nil || string(signature) != rfcSignature {
		t.Fatalf("final: %q, %v", signature, err)
	}
	_, want, err := scram.Derive("pencil", s.Verifier.Salt, 4096)
	if err != nil || key != want {
		t.Errorf("the client's key was not recovered: %v", err)
	}
}

// libpq and lockkeeper name no user in the exchange, the RFC's client does: the
// proof is for another text, and what must be right is what follows from it.
func TestClientAndServerAgree(t *testing.T) {
	v := rfcVerifier(t)
	_, clientKey, err := scram.Derive("pencil", v.Salt, v.Iterations)
	if err != nil {
		t.Fatal(err)
	}
	provers := map[string]scram.Prover{"password": scram.Password("pencil"), "client key": &scram.Proven{Verifier: v, ClientKey: clientKey}}
	for name, prover := range provers {
		for _, tt := range []struct {
			client, server []byte // channel binding data
			mechanism      string
			first, final   error // of the server
		}{
			{nil, nil, scram.Name, nil, nil},
			{[]byte("certificate"), nil, scram.Name, nil, nil}, // y,,
			{nil, []byte("certificate"), scram.Name, nil, nil},
			{[]byte("certificate"), []byte("certificate"), scram.NamePlus, nil, nil},
			{[]byte("certificate"), []byte("somebody in between"), scram.NamePlus, nil, scram.ErrBinding},
		} {
			s := &scram.Server{Verifier: v, Binding: tt.server}
			c := &scram.Client{Prover: prover, Binding: tt.client}
			_, err := exchange(c, s, s.Mechanisms(), tt.mechanism)
			if !errors.Is(err, tt.final) || (err == nil) != (tt.final == nil) || err == nil && !c.Verified() {
				t.Errorf("%s, client binds %q, server %q: %v", name, tt.client, tt.server, err)
			}
		}
	}
}

// exchange lets both sides talk; offered is what the client hears that it may
// choose, and mechanism what it has to.
func exchange(c *scram.Client, s *scram.Server, offered []string, mechanism string) (scram.Key, error) {
	got, ok := c.Choose(offered)
	if !ok || got != mechanism {
		return scram.Key{}, fmt.Errorf("the client chose %q of %q", got, offered)
	}
	first, err := s.First(got, c.First())
	if err != nil {
		return scram.Key{}, err
	}
	proof, err := c.Final(first)
	if err != nil {
		return scram.Key{}, err
	}
	final, key, err := s.Final(proof)
	if err != nil {
		return key, err
	}
	return key, c.Verify(final)
}

// Who strikes SCRAM-SHA-256-PLUS from the server's offer is found out by the
// client's flag "y".
func TestADowngradeIsNoticed(t *testing.T) {
	s := &scram.Server{Verifier: rfcVerifier(t), Binding: []byte("certificate")}
	c := &scram.Client{Prover: scram.Password("pencil"), Binding: []byte("certificate")}
	if _, err := exchange(c, s, []string{scram.Name}, scram.Name); !errors.Is(err, scram.ErrMalformed) || !strings.Contains(err.Error(), "is not offered, but it is") {
		t.Errorf("got %v", err)
	}
}

func TestWrongPasswordsAndMadeUpUsers(t *testing.T) {
	v := rfcVerifier(t)
	for name, tt := range map[string]struct {
		password string
		doomed   bool
	}{
		"wrong password":                       {"pen", false},
		"no password":                          {"", false},
		"the right password of nobody at all":  {"pencil", true},
		"the wrong password of nobody at all":  {"pen", true},
		"a password that SASLprep changes":     {"pe\u00adncil ", false},
		"a password in another case and space": {" Pencil", false},
	} {
		s := &scram.Server{Verifier: v, Doomed: tt.doomed}
		c := &scram.Client{Prover: scram.Password(tt.password)}
		key, err := exchange(c, s, s.Mechanisms(), scram.Name)
		if !errors.Is(err, scram.ErrProof) || key != (scram.Key{}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAServerThatDoesNotKnowThePassword(t *testing.T) {
	s := &scram.Server{Verifier: rfcVerifier(t)}
	s.Verifier.ServerKey[0] ^= 1
	c := &scram.Client{Prover: scram.Password("pencil")}
	if _, err := exchange(c, s, s.Mechanisms(), scram.Name); !errors.Is(err, scram.ErrServer) || c.Verified() {
		t.Errorf("got %v", err)
	}
}

func TestAClientKeyFitsItsOwnVerifierOnly(t *testing.T) {
	v := rfcVerifier(t)
	for name, change := range map[string]func(*scram.Verifier){
		"salt":       func(v *scram.Verifier) { v.Salt = []byte("another salt") },
		"iterations": func(v *scram.Verifier) { v.Iterations = 10000 },
	} {
		other := v
		change(&other)
		s := &scram.Server{Verifier: other}
		c := &scram.Client{Prover: &scram.Proven{Verifier: v}}
		if _, err := exchange(c, s, s.Mechanisms(), scram.Name); !errors.Is(err, scram.ErrDiffers) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestMalformedFirstMessages(t *testing.T) {
	for _, message := range []string{
		"", "n", "n,", "n,,", "x,,n=,r=abc", "n,a=admin,n=,r=abc", "n,,m=ext,n=,r=abc", "n,,n=", "n,,n=,r=", "n,,n=,r=a\x01b", "n,,n=,r=a\x00b",
		"n,,r=abc", "n,,n=,r=abc,1=2", "n,,n=,r=abc,x", "nn,,n=,r=abc", "p,,n=,r=abc", "y=,,n=,r=abc", "n,,n=,r=ab c",
	} {
		s := &scram.Server{Verifier: rfcVerifier(t)}
		if answer, err := s.First(scram.Name, []byte(message)); !errors.Is(err, scram.ErrMalformed) || answer != nil {
			t.Errorf("%q: %q, %v", message, answer, err)
		}
	}
	for _, tt := range []struct{ mechanism, message string }{
		{scram.NamePlus, "n,,n=,r=abc"},
		{scram.NamePlus, "y,,n=,r=abc"},
		{scram.NamePlus, "p=tls-unique,,n=,r=abc"},
		{scram.Name, "p=tls-server-end-point,,n=,r=abc"},
		{scram.Name, "y,,n=,r=abc"},
		{"SCRAM-SHA-1", "n,,n=,r=abc"},
		{"", "n,,n=,r=abc"},
	} {
		s := &scram.Server{Verifier: rfcVerifier(t), Binding: []byte("certificate")}
		if _, err := s.First(tt.mechanism, []byte(tt.message)); !errors.Is(err, scram.ErrMalformed) {
			t.Errorf("%s %q: %v", tt.mechanism, tt.message, err)
		}
	}
	if _, err := (&scram.Server{}).First(scram.NamePlus, []byte("p=tls-server-end-point,,n=,r=abc")); !errors.Is(err, scram.ErrMalformed) {
		t.Errorf("channel binding that was not offered: %v", err)
	}
}

func TestMalformedFinalMessages(t *testing.T) {
	const proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	const nonce = rfcClientNonce + rfcServerNonce
	for _, message := range []string{
		"", "c=biws", "c=biws,", "c=biws,r=" + nonce, "c=biws,r=" + nonce + ",", "c=biws,r=" + nonce + ",p=", "c=biws,r=" + nonce + ",p=AAAA",
		"c=biws,r=" + nonce + ",p=" + proof + ",", "c=biws,r=" + nonce + ",p=" + proof + ",p=" + proof, "c=!,r=" + nonce + ",p=" + proof,
		"r=" + nonce + ",c=biws,p=" + proof, "c=biws,r=" + nonce + ",xx,p=" + proof, "c=biws,r=" + nonce + "\x00,p=" + proof,
		"c=biws,r=" + rfcClientNonce + ",p=" + proof, "c=biws,r=" + nonce + "x,p=" + proof,
	} {
		s := &scram.Server{Verifier: rfcVerifier(t), Nonce: rfcServerNonce}
		if _, err := s.First(scram.Name, []byte(rfcFirst)); err != nil {
			t.Fatal(err)
		}
		if answer, key, err := s.Final([]byte(message)); !errors.Is(err, scram.ErrMalformed) || answer != nil || key != (scram.Key{}) {
			t.Errorf("%q: %q, %v", message, answer, err)
		}
	}
	s := &scram.Server{Verifier: rfcVerifier(t), Nonce: rfcServerNonce}
	if _, _, err := s.Final([]byte("c=,r=x,p=" + proof)); err == nil {
		t.Error("a final message before the first one")
	}
	if _, err := s.First(scram.Name, []byte(rfcFirst)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Final([]byte("c=eSws,r=" + nonce + ",p=" + proof)); !errors.Is(err, scram.ErrMalformed) {
		t.Errorf("another header than in the first message: %v", err)
	}
}

func TestMalformedMessagesOfServers(t *testing.T) {
	for _, message := range []string{
		"", "r=abc", "r=abcd,s=,i=1", "r=abcd,s=AAAA,i=", "r=abcd,s=AAAA,i=0", "r=abcd,s=AAAA,i=-1", "r=abcd,s=AAAA,i=99999999999", "r=abcd,s=AAAA,i=10000001",
		"r=abc,s=AAAA,i=1", "r=xbcd,s=AAAA,i=1", "s=AAAA,r=abcd,i=1", "r=abcd,s=!,i=1", "e=unknown-user",
	} {
		c := &scram.Client{Prover: scram.Password("x"), Nonce: "abc"}
		c.Choose([]string{scram.Name})
		c.First()
		if _, err := c.Final([]byte(message)); !errors.Is(err, scram.ErrMalformed) {
			t.Errorf("%q: %v", message, err)
		}
		if err := c.Verify([]byte("v=" + base64.StdEncoding.EncodeToString(make([]byte, 32)))); err == nil {
			t.Errorf("%q: a signature before the proof", message)
		}
	}
	if _, ok := (&scram.Client{}).Choose([]string{"SCRAM-SHA-1", scram.NamePlus}); ok {
		t.Error("a mechanism was chosen that cannot be used")
	}
}

func TestVerifiersAreReadAsPostgreSQLWritesThem(t *testing.T) {
	const text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	got, err := scram.ParseVerifier(text)
	want := rfcVerifier(t)
	if err != nil || got.Iterations != want.Iterations || !bytes.Equal(got.Salt, want.Salt) || got.StoredKey != want.StoredKey || got.ServerKey != want.ServerKey {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{
		"", "SCRAM-SHA-256", "SCRAM-SHA-256$", strings.Replace(text, "4096", "0", 1), strings.Replace(text, "4096", "x", 1), text[:len(text)-8],
		strings.Replace(text, "W22ZaJ0SNY7soEsUEjb6gQ==", "", 1), strings.Replace(text, "W22Z", "!!!!", 1), strings.Replace(text, "WG5d", "", 1), "md5" + strings.Repeat("0", 32),
	} {
		if _, err := scram.ParseVerifier(bad); !errors.Is(err, scram.ErrVerifier) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	v := rfcVerifier(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
		if text := fmt.Sprintf(verb, v.StoredKey); text != "[key]" {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	if text := fmt.Sprintf("%+v", v); strings.Count(text, "[key]") != 2 {
		t.Errorf("a verifier prints %s", text)
	}
}

// What PostgreSQL's pg_saslprep makes of passwords; the prepared one and what
// was typed are the same password there.
func TestPasswordsArePrepared(t *testing.T) {
	for in, want := range map[string]string{
		"pencil":        "pencil",
		"tab\there":     "tab\there", // ASCII is left alone
		"I\u00adX":      "IX",        // RFC 4013, section 3
		"\u00aa":        "a",
		"\u2168":        "IX",
		"\u0627\u0031":  "\u0627\u0031", // both directions: not allowed, so used as it is
		"a\u00a0b":      "a b",
		"\u00ad":        "\u00ad", // nothing would be left
		"bad \xff utf8": "bad \xff utf8",
		"\u0221":        "\u0221", // not assigned in Unicode 3.2
	} {
		if got := scram.Prepare(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// Source: RFC 5929, section 4.1.
func TestEndPointHasTheSignaturesHash(t *testing.T) {
	for algorithm, size := range map[x509.SignatureAlgorithm]int{
		x509.MD5WithRSA: 32, x509.SHA1WithRSA: 32, x509.ECDSAWithSHA1: 32, x509.SHA256WithRSA: 32, x509.ECDSAWithSHA256: 32, x509.SHA256WithRSAPSS: 32,
		x509.SHA384WithRSA: 48, x509.ECDSAWithSHA384: 48, x509.SHA512WithRSA: 64, x509.ECDSAWithSHA512: 64, x509.PureEd25519: 0, x509.UnknownSignatureAlgorithm: 0,
	} {
		if got := scram.EndPoint(&x509.Certificate{Raw: []byte("certificate"), SignatureAlgorithm: algorithm}); len(got) != size {
			t.Errorf("%v: %d bytes, want %d", algorithm, len(got), size)
		}
	}
	if scram.EndPoint(nil) != nil {
		t.Error("data of no certificate")
	}
}
