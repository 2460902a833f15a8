package console

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxCommandBytes bounds one query of a client.
const maxCommandBytes = 16 << 10

// command is one command that was read.
type command struct {
	verb    string        // in capitals: SHOW, PAUSE …
	what    string        // SHOW: what is shown, in capitals; SHUTDOWN: how
	arg     string        // database, session, or value
	timeout time.Duration // 0: none
	text    string        // as it was sent, for the journal
}

// word is one token; a quoted one is never a keyword.
type word struct {
	text   string
	quoted bool
}

func (w word) upper() string {
	if w.quoted {
		return ""
	}
	return strings.ToUpper(w.text)
}

// parse reads the commands of one query. An empty query has none.
func parse(text string) ([]command, error) {
	if len(text) > maxCommandBytes {
		return nil, fmt.Errorf("a command has at most %d bytes", maxCommandBytes)
	}
	var all []command
	for text != "" {
		words, used, err := split(text)
		if err != nil {
			return nil, err
		}
		if len(words) > 0 {
			c, err := read(words)
			if err != nil {
				return nil, err
			}
			c.text = strings.Trim(strings.TrimSpace(text[:used]), "; \t\r\n")
			all = append(all, c)
		}
		text = text[used:]
	}
	return all, nil
}

const blanks = " \t\r\n\f\v"

// split cuts one command up to its semicolon into words.
func split(text string) (words []word, used int, err error) {
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ';':
			return words, i + 1, nil
		case strings.IndexByte(blanks, c) >= 0:
			i++
		case strings.HasPrefix(text[i:], "--"):
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				return words, len(text), nil
			}
			i += end
		case c == '=' || c == ',':
			words = append(words, word{text: string(c)})
			i++
		case c == '\'' || c == '"':
			w, n, ok := quoted(text[i:], c)
			if !ok {
				return nil, 0, errors.New("a quote is not closed")
			}
			words = append(words, word{w, true})
			i += n
		default:
			n := strings.IndexAny(text[i:], blanks+";=,'\"")
			if n < 0 {
				n = len(text) - i
			}
			words = append(words, word{text: text[i : i+n]})
			i += n
		}
	}
	return words, len(text), nil
}

// quoted reads a quoted word; a doubled quote stands for itself.
func quoted(text string, q byte) (w string, n int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != q {
			b.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == q {
			b.WriteByte(q)
			i++
			continue
		}
		return b.String(), i + 1, true
	}
	return "", 0, false
}

// ignored are commands that drivers send and that mean nothing here.
var ignored = []string{"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "DISCARD", "RESET", "DEALLOCATE"}

func read(words []word) (command, error) {
	verb, rest := words[0].upper(), words[1:]
	c := command{verb: verb}
	if slices.Contains(ignored, verb) {
		return c, nil
	}
	switch verb {
	case "SHOW", "SELECT":
		return c.show(rest)
	case "SET":
		return c.set(rest)
	case "PAUSE", "RECONNECT", "WAIT_CLOSE":
		return c.database(rest, true, false)
	case "RESUME", "KILL":
		return c.database(rest, false, false)
	case "DISABLE", "ENABLE", "KILL_CLIENT":
		return c.database(rest, false, true)
	case "RELOAD":
		return c.database(rest, false, false)
	case "SHUTDOWN":
		return c.shutdown(rest)
	case "NORMAL":
		return c.reason(rest)
	case "READ", "HOLD", "FREEZE":
		if len(rest) > 0 && rest[0].upper() == map[string]string{"READ": "ONLY", "HOLD": "WRITES", "FREEZE": "DDL"}[verb] {
			return c.reason(rest[1:])
		}
	}
	return c, fmt.Errorf("unknown command %s", shown(words[0]))
}

// shown is a word in an error; a long one is cut.
func shown(w word) string {
	const most = 40
	if len(w.text) > most {
		return strconv.Quote(w.text[:most] + "...")
	}
	return strconv.Quote(w.text)
}

func (c command) show(rest []word) (command, error) {
	c.verb = "SHOW"
	if len(rest) == 0 {
		return c, errors.New("SHOW what?")
	}
	for _, w := range rest {
		c.what = strings.TrimSpace(c.what + " " + strings.ToUpper(w.text))
	}
	return c, nil
}

func (c command) set(rest []word) (command, error) {
	if len(rest) > 0 && (rest[0].upper() == "SESSION" || rest[0].upper() == "LOCAL") {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return c, errors.New("SET key = value")
	}
	c.what = strings.ToLower(rest[0].text)
	return c, nil
}

// database reads an optional name, and TIMEOUT with seconds.
func (c command) database(rest []word, timeout, needed bool) (command, error) {
	onlyTimeout := timeout && len(rest) == 2 && rest[0].upper() == "TIMEOUT"
	if len(rest) > 0 && !onlyTimeout {
		c.arg, rest = rest[0].text, rest[1:]
	}
	if timeout && len(rest) == 2 && rest[0].upper() == "TIMEOUT" {
		n, err := strconv.ParseFloat(rest[1].text, 64)
		if err != nil || !(n > 0 && n <= maxTimeout.Seconds()) {
			return c, fmt.Errorf("TIMEOUT wants seconds, more than 0 and at most %.0f", maxTimeout.Seconds())
		}
		c.timeout, rest = time.Duration(n*float64(time.Second)), nil
	}
	switch {
	case len(rest) > 0:
		return c, fmt.Errorf("%s: what is %s?", c.verb, shown(rest[0]))
	case needed && c.arg == "":
		return c, fmt.Errorf("%s needs a name or number", c.verb)
	}
	return c, nil
}

// maxTimeout bounds TIMEOUT.
const maxTimeout = 24 * time.Hour

func (c command) shutdown(rest []word) (command, error) {
	if len(rest) == 0 {
		return c, nil
	}
	c.what = rest[0].upper()
	if len(rest) > 1 || c.what != "WAIT_FOR_SERVERS" && c.what != "WAIT_FOR_CLIENTS" {
		return c, errors.New("SHUTDOWN, SHUTDOWN WAIT_FOR_SERVERS or SHUTDOWN WAIT_FOR_CLIENTS")
	}
	return c, nil
}

// reason reads the optional quoted reason.
func (c command) reason(rest []word) (command, error) {
	switch {
	case len(rest) == 0:
	case len(rest) == 1 && rest[0].quoted:
		c.arg = rest[0].text
	default:
		return c, fmt.Errorf("%s: want the reason in quotes, not %s", c.verb, shown(rest[0]))
	}
	return c, nil
}
