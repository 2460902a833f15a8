package api

// Keyring knows the tokens, for logins that are not requests.
type Keyring struct{ identities []identity }

// NewKeyring returns the tokens in a form in which they can be compared.
func NewKeyring(tokens []Token) (*Keyring, error) {
	ids, err := identities(tokens)
	return &Keyring{ids}, err
}

// Login returns the role of the token of that name; NoRole where the token is
// another one. It compares in constant time.
func (k *Keyring) Login(name, token string) Role {
	id, ok := who(k.identities, token)
	if !ok || id.name != name {
		return NoRole
	}
	return id.role
}
