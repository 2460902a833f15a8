package scram_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"lockkeeper/proxy/scram"
)

// FuzzServer gives the server's side whatever a client may send. It must never
// accept a key that does not fit the verifier, and its answer to the first
// message begins with the client's nonce.
func FuzzServer(f *testing.F) {
	binding := []byte("certificate")
	f.Add(scram.Name, []byte(rfcFirst), []byte(rfcFinal), false)
	f.Add(scram.Name, []byte("y,,n=,r=abc"), []byte("c=eSws,r=abc"+rfcServerNonce+",x=1,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), false)
	f.Add(scram.NamePlus, []byte("p=tls-server-end-point,,n=,r=abc,e=x"), []byte("c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsY2VydGlmaWNhdGU=,r=abc"+rfcServerNonce+",p=AAAA"), true)
	f.Add(scram.NamePlus, []byte("p=tls-unique,,n=,r=abc"), []byte("c=biws,r=,p="), true)
	f.Add("", []byte("n,a=x,m=,n="), []byte("\x00"), true)
	verifier := rfcVerifier(f)
	f.Fuzz(func(t *testing.T, mechanism string, first, final []byte, plus bool) {
		s := &scram.Server{Verifier: verifier, Nonce: rfcServerNonce}
		if plus {
			s.Binding = binding
		}
		answer, err := s.First(mechanism, first)
		if err != nil {
			if answer != nil {
				t.Errorf("an answer with an error: %q", answer)
			}
			return
		}
		nonce, _, _ := strings.Cut(strings.TrimPrefix(string(answer), "r="), ",")
		client, ours := strings.CutSuffix(nonce, rfcServerNonce)
		if !ours || client == "" || !bytes.Contains(first, []byte("r="+client)) {
			t.Errorf("%q was answered by %q", first, answer)
		}
		signature, key, err := s.Final(final)
		switch {
		case err != nil && (signature != nil || key != scram.Key{}):
			t.Errorf("a key with an error: %v", err)
		case err == nil && sha256.Sum256(key[:]) != verifier.StoredKey:
			t.Errorf("%q was accepted", final)
		}
	})
}

// FuzzClient gives the client's side whatever a server may send: it is never
// persuaded that the server knows the password.
func FuzzClient(f *testing.F) {
	f.Add([]byte("r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1"), []byte(rfcSignature))
	f.Add([]byte("r=abcdef,s=AAAA,i=2,x=1"), []byte("e=other-error"))
	f.Add([]byte("r=ab,s=,i="), []byte("v="))
	f.Fuzz(func(t *testing.T, first, final []byte) {
		if bytes.Contains(first, []byte("i=")) && !bytes.Contains(first, []byte("i=1,")) && !bytes.HasSuffix(first, []byte("i=1")) {
			return // many iterations find nothing more
		}
		c := &scram.Client{Prover: scram.Password("pencil"), Nonce: "abc"}
		c.Choose([]string{scram.Name})
		c.First()
		proof, err := c.Final(first)
		if err == nil && !bytes.HasPrefix(proof, []byte("c=biws,r=abc")) {
			t.Errorf("proof %q", proof)
		}
		if err := c.Verify(final); err == nil || c.Verified() {
			t.Errorf("%q was believed", final)
		}
	})
}
