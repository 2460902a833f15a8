package pgtest

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ServerVariable is the environment variable that names a server for Shared to
// use instead of one that it starts: a connection string of a superuser.
const ServerVariable = "LOCKKEEPER_TEST_SERVER"

var errExternal = errors.New("the server that $" + ServerVariable + " names is not ours to start or stop")

// external is a server that somebody else runs.
type external struct {
	host, user, password, sslmode string
}

// useExternal returns the server that $LOCKKEEPER_TEST_SERVER names; nil when
// it names none.
func useExternal() (*Server, error) {
	text := os.Getenv(ServerVariable)
	if text == "" {
		return nil, nil //nolint:nilnil // documented: there is none, and that is no error
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("read $%s: %w", ServerVariable, err)
	}
	sslmode := "disable"
	if config.TLSConfig != nil {
		sslmode = "require"
	}
	return &Server{
		port:      int(config.Port),
		external:  &external{host: config.Host, user: config.User, password: config.Password, sslmode: sslmode},
		templates: map[string]bool{},
	}, nil
}

func (e *external) connString(port int, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=%s",
		quote(e.host), port, quote(e.user), quote(e.password), quote(database), e.sslmode)
}

// quote writes a value of a keyword/value connection string.
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}
