package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"lockkeeper/proxy/auth"
)

// AuthMethod is who authenticates clients, and by what.
type AuthMethod string

// The methods. All but relay are lockkeeper's own: the client is authenticated
// before a server is connected to, and lockkeeper logs in there in its place.
const (
	AuthRelay AuthMethod = "relay" // the server; lockkeeper passes its questions and the client's answers on
	AuthSCRAM AuthMethod = "scram" // SCRAM-SHA-256, with channel binding where the client has TLS
	AuthCert  AuthMethod = "cert"  // the common name of the client's certificate
	AuthPeer  AuthMethod = "peer"  // the operating system's user at the other end of a unix socket
)

// authMethods are all of them.
const authMethods = "relay, scram, cert, peer"

// Auth says how the clients of a server are authenticated. The keys have
// PgBouncer's names where it has them.
type Auth struct {
	Method AuthMethod `yaml:"auth"`

	File     string `yaml:"auth_file"`   // users and their secrets, as PgBouncer's userlist.txt
	Query    string `yaml:"auth_query"`  // asks the server for the secret of user $1; "" is what PgBouncer asks
	User     string `yaml:"auth_user"`   // who asks; "" does not ask
	Database string `yaml:"auth_dbname"` // where; postgres by default

	// PasswordFile or PasswordEnv, the name of an environment variable, has the
	// password that lockkeeper logs in with where auth_file has none.
	PasswordFile string `yaml:"auth_password_file"`
	PasswordEnv  string `yaml:"auth_password_env"`

	// Map says which users a certificate's or the system's name may be; empty:
	// the one of the same name.
	Map map[string][]string `yaml:"auth_map"`
}

func (a *Auth) method() AuthMethod {
	if a.Method == "" {
		return AuthRelay
	}
	return a.Method
}

// permits reports whether who has proved to be name may be user.
func (a *Auth) permits(name, user string) bool {
	if name == "" {
		return false
	}
	if len(a.Map) == 0 {
		return name == user
	}
	return slices.Contains(a.Map[name], user)
}

func (a *Auth) validate(c *Config) error {
	var all []error
	complain := func(text string) { all = append(all, errors.New(text)) }
	switch a.method() {
	case AuthRelay:
		if a.File+a.Query+a.User+a.Database+a.PasswordFile+a.PasswordEnv != "" || len(a.Map) > 0 {
			complain("auth_file, auth_query, auth_user, auth_dbname, auth_password_file, auth_password_env and auth_map are for auth: scram, cert or peer")
		}
	case AuthSCRAM:
		if a.File == "" && a.User == "" {
			complain("auth: scram needs auth_file, or auth_user for auth_query")
		}
	case AuthCert:
		if c.TLS.CA == "" || c.TLS.Mode == "" || c.TLS.Mode == "disable" {
			complain("auth: cert needs tls.ca, and a tls.sslmode other than disable")
		}
	case AuthPeer: // a socket unit may have opened what listen.unix does not name
	default:
		complain(fmt.Sprintf("auth %q is none of %s", a.Method, authMethods))
	}
	if a.PasswordFile != "" && a.PasswordEnv != "" {
		complain("auth_password_file and auth_password_env: choose one")
	}
	if a.User == "" && a.Query+a.Database != "" {
		complain("auth_query and auth_dbname need auth_user")
	}
	if a.method() != AuthSCRAM && a.User != "" {
		complain("auth_query and auth_user are for auth: scram")
	}
	if a.method() == AuthSCRAM && len(a.Map) > 0 {
		complain("auth_map is for auth: cert or peer")
	}
	return errors.Join(all...)
}

// ReadUserlist reads an auth_file; errors name the lines.
func ReadUserlist(file string) (*auth.Userlist, error) {
	data, err := readAtMost(file, auth.MaxUserlist)
	if err != nil {
		return nil, fmt.Errorf("auth_file: %w", err)
	}
	return auth.ParseUserlist(file, data)
}

// ReadPassword reads auth_password_file, without the line's end, or
// auth_password_env; nil where neither is set.
func (a *Auth) ReadPassword() (*auth.Secret, error) {
	var password string
	switch {
	case a.PasswordFile != "":
		data, err := readAtMost(a.PasswordFile, auth.MaxSecret+2)
		if err != nil {
			return nil, fmt.Errorf("auth_password_file: %w", err)
		}
		password = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
		if strings.ContainsAny(password, "\r\n") {
			return nil, fmt.Errorf("auth_password_file %s: it has more than one line", a.PasswordFile)
		}
	case a.PasswordEnv != "":
		password = os.Getenv(a.PasswordEnv)
	default:
		return nil, nil //nolint:nilnil // no password is one of the answers
	}
	if password == "" {
		return nil, errors.New("auth_password_file or auth_password_env: the password is empty")
	}
	s, err := auth.NewPassword(password)
	if err != nil {
		return nil, fmt.Errorf("auth_password_file or auth_password_env: %w", err)
	}
	return s, nil
}

// readAtMost reads a file that is not longer than limit.
func readAtMost(file string, limit int) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", file, limit)
	}
	return data, nil
}
