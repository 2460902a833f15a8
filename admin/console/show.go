package console

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/admin/control"
	"lockkeeper/policy"
	"lockkeeper/proxy"
)

// view is what one SHOW answers: PgBouncer's columns first, then our own.
type view struct {
	name    string
	columns string // separated by blanks
	rows    func(k *client, ctx context.Context) ([][]any, error)
}

const clientColumns = "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us close_needed ptr link " +
	"remote_pid tls application_name prepared_statements id held_by tags statement rows_written"

const socketColumns = clientColumns + " recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail"

// statColumns are those of SHOW STATS_TOTALS and STATS_AVERAGES; SHOW STATS has
// them twice, under other names. Source: PgBouncer 1.24's src/stats.c.
const statColumns = "server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time client_parse_count " +
	"server_parse_count bind_count"

// bothStatColumns are those of SHOW STATS.
func bothStatColumns() string {
	all := strings.Fields(statColumns)
	var out []string
	for _, prefix := range []string{"total_", "avg_"} {
		for _, c := range all {
			switch {
			case strings.HasPrefix(c, "bytes_") && prefix == "avg_":
				c = map[string]string{"bytes_received": "recv", "bytes_sent": "sent"}[c]
			default:
				c = strings.TrimPrefix(c, "bytes_")
			}
			out = append(out, prefix+c)
		}
	}
	return strings.Join(out, " ")
}

// views are all there are but HELP.
func views() []view {
	return []view{
		{"ACTIVE_SOCKETS", socketColumns, func(k *client, _ context.Context) ([][]any, error) {
			return slices.DeleteFunc(k.sockets(), func(row []any) bool { return row[4] != "active" }), nil
		}},
		{"CATALOGS", "server database sessions relations taken fresh error functions", func(k *client, _ context.Context) ([][]any, error) {
			var rows [][]any
			for _, c := range k.c.deps.Control.Status().Catalogs {
				rows = append(rows, []any{c.Server, c.Database, c.Sessions, c.Relations, c.Taken, c.Fresh, c.Error, c.Functions})
			}
			return rows, nil
		}},
		{"CLIENTS", clientColumns, func(k *client, _ context.Context) ([][]any, error) { return k.peers("C"), nil }},
		{"CONFIG", "key value default changeable", func(k *client, _ context.Context) ([][]any, error) { return k.config(), nil }},
		{"DATABASES", "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode load_balance_hosts " +
			"max_connections current_connections max_client_connections current_client_connections paused disabled reserve_pool", func(k *client, _ context.Context) ([][]any, error) { return k.databases(), nil }},
		{"LISTS", "list items", func(k *client, _ context.Context) ([][]any, error) { return k.lists(), nil }},
		{"LOCKS", "server pid session user database application_name state relation type mode granted blocked_by", (*client).locks},
		{"MEM", "name size used free memtotal", func(*client, context.Context) ([][]any, error) { return memory(), nil }},
		{"MODE", "mode scoped since profile rules writable_tables", func(k *client, _ context.Context) ([][]any, error) {
			s := k.c.deps.Control.Status()
			return [][]any{{s.Mode, s.Scoped, s.Since, s.Profile, s.Rules, strings.Join(s.WritableTables(), ", ")}}, nil
		}},
		{"PAUSES", "id kind database user application tag since until author reason waits_for", func(k *client, _ context.Context) ([][]any, error) { return k.pauses(), nil }},
		{"POOLS", "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used " +
			"sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts", func(k *client, _ context.Context) ([][]any, error) { return k.pools(), nil }},
		{"RULES", "name enforce effect doc", func(k *client, _ context.Context) ([][]any, error) {
			var rows [][]any
			for _, r := range k.c.deps.Control.Policy().Rules {
				rows = append(rows, []any{r.Name, r.Enforce, r.Effect, r.Doc})
			}
			return rows, nil
		}},
		{"SERVERS", clientColumns, func(k *client, _ context.Context) ([][]any, error) { return k.peers("S"), nil }},
		{"SESSIONS", "id user database application_name addr state state_since held_by tags server server_pid tls connect_time transaction_since statement " +
			"rows_written transaction_rows_written bytes_in bytes_out", func(k *client, _ context.Context) ([][]any, error) { return k.sessions(), nil }},
		{"SOCKETS", socketColumns, func(k *client, _ context.Context) ([][]any, error) { return k.sockets(), nil }},
		{"STATE", "key value", func(k *client, _ context.Context) ([][]any, error) {
			paused := k.holds(policy.Pause, "")
			return [][]any{{"active", yesNo(!paused)}, {"paused", yesNo(paused)}, {"suspended", "no"}}, nil
		}},
		{"STATS", "database " + bothStatColumns() + " sessions rows_written", func(k *client, _ context.Context) ([][]any, error) { return k.stats(), nil }},
		{"STATS_AVERAGES", "database " + statColumns, func(k *client, _ context.Context) ([][]any, error) {
			return k.tallies(func(s *proxy.DatabaseStats) *proxy.Tally { return &s.Average }), nil
		}},
		{"STATS_TOTALS", "database " + statColumns, func(k *client, _ context.Context) ([][]any, error) {
			return k.tallies(func(s *proxy.DatabaseStats) *proxy.Tally { return &s.Total }), nil
		}},
		{"TOTALS", "name value", func(k *client, _ context.Context) ([][]any, error) { return k.totals(), nil }},
		{"USERS", "name pool_size reserve_pool_size pool_mode max_user_connections current_connections max_user_client_connections current_client_connections", func(k *client, _ context.Context) ([][]any, error) { return k.users(), nil }},
		{"VERSION", "version", func(k *client, _ context.Context) ([][]any, error) {
			return [][]any{{"lockkeeper " + k.c.deps.Version}}, nil
		}},
	}
}

// asked are the settings that drivers ask for when they connect, with
// PgBouncer's answers.
func asked(name string) (string, bool) {
	v, ok := map[string]string{
		"CLIENT_ENCODING": "UTF8", "DEFAULT_TRANSACTION_ISOLATION": "read committed", "TRANSACTION ISOLATION LEVEL": "read committed",
		"STANDARD_CONFORMING_STRINGS": "on", "DATESTYLE": "ISO, MDY", "TIMEZONE": "UTC", "TIME ZONE": "UTC", "SERVER_VERSION": "14.0",
		"MAX_IDENTIFIER_LENGTH": "63", "DEFAULT_TRANSACTION_READ_ONLY": "off", "TRANSACTION_READ_ONLY": "off",
	}[name]
	return v, ok
}

func (k *client) show(ctx context.Context, what string) error {
	if what == "HELP" {
		k.notice(help())
		k.out.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHOW")})
		return nil
	}
	if v, ok := asked(what); ok {
		k.table([]string{strings.ToLower(what)}, [][]any{{v}})
		return nil
	}
	for _, v := range views() {
		if v.name != what {
			continue
		}
		rows, err := v.rows(k, ctx)
		if err == nil {
			k.table(strings.Fields(v.columns), rows)
		}
		return err
	}
	return &failure{sqlstate: "42704", message: "there is nothing of that name to show", hint: "SHOW HELP lists the commands; other SQL belongs on another database."}
}

func help() string {
	var names []string
	for _, v := range views() {
		names = append(names, v.name)
	}
	return "Console usage:\n\tSHOW HELP|" + strings.Join(names, "|") + "\n\tPAUSE [db] [TIMEOUT seconds]\n\tRESUME [db]\n\tDISABLE db\n\tENABLE db\n" +
		"\tKILL [db]\n\tKILL_CLIENT id\n\tRECONNECT [db] [TIMEOUT seconds]\n\tWAIT_CLOSE [db] [TIMEOUT seconds]\n\tRELOAD\n" +
		"\tSHUTDOWN\n\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS\n\tREAD ONLY ['reason']\n\tHOLD WRITES ['reason']\n\tFREEZE DDL ['reason']\n\tNORMAL ['reason']"
}

// The types of columns. Source: pg_type.dat.
const (
	textOID = 25
	int8OID = 20
)

// table answers with rows. A column whose first value is a number is one.
func (k *client) table(columns []string, rows [][]any) {
	fields := make([]pgproto3.FieldDescription, len(columns))
	for i, c := range columns {
		fields[i] = pgproto3.FieldDescription{Name: []byte(c), DataTypeOID: textOID, DataTypeSize: -1, TypeModifier: -1}
		if len(rows) > 0 && isNumber(rows[0][i]) {
			fields[i].DataTypeOID, fields[i].DataTypeSize = int8OID, 8
		}
	}
	k.out.Send(&pgproto3.RowDescription{Fields: fields})
	for _, row := range rows {
		values := make([][]byte, len(row))
		for i, v := range row {
			values[i] = cell(v)
		}
		k.out.Send(&pgproto3.DataRow{Values: values})
	}
	k.out.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHOW")})
}

func isNumber(v any) bool {
	switch v.(type) {
	case int, int64, uint32, uint64:
		return true
	}
	return false
}

// cell writes a value; nil and the zero time are NULL.
func cell(v any) []byte {
	switch v := v.(type) {
	case nil:
		return nil
	case time.Time:
		if v.IsZero() {
			return nil
		}
		return []byte(v.UTC().Format("2006-01-02 15:04:05 UTC"))
	case []string:
		return []byte(strings.Join(v, ","))
	}
	return fmt.Append(nil, v)
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func oneZero(v bool) int {
	if v {
		return 1
	}
	return 0
}

// peers are sessions as PgBouncer would show their clients (C) or servers (S).
func (k *client) peers(kind string) [][]any {
	var rows [][]any
	all := k.c.deps.Control.Sessions()
	for i := range all {
		s := &all[i]
		state, wait := "active", time.Duration(0)
		switch s.State {
		case "held":
			if state = "idle"; kind == "C" {
				state, wait = "waiting", k.c.deps.Now().Sub(s.StateSince)
			}
		case "idle", "login":
			state = s.State
		}
		number := strconv.FormatUint(s.ID, 10)
		row := append([]any{kind, s.User, s.Database, cmp.Or(s.Replication, "none"), state}, socketOf(s, kind)...)
		rows = append(rows, append(row, s.Connected, s.Requested,
			int64(wait/time.Second), int64(wait%time.Second/time.Microsecond), oneZero(k.c.ending(s.ID)), number, number,
			pidOf(s, kind), cipherOf(s, kind), s.Application, s.Prepared, s.ID, s.HeldBy, s.Tags, s.Statement, s.RowsWritten))
	}
	return rows
}

// sockets are both ends of every session. The buffers' positions are
// PgBouncer's own.
func (k *client) sockets() [][]any {
	rows := append(k.peers("C"), k.peers("S")...)
	for i := range rows {
		rows[i] = append(rows[i], 0, 0, 0, 0, 0, 0, 0)
	}
	return rows
}

// socketOf is where a client, or a server, and lockkeeper are connected: addr,
// port, local_addr and local_port.
func socketOf(s *proxy.SessionInfo, kind string) []any {
	if kind == "S" {
		return append(hostPort(s.ServerAddress), hostPort(s.ServerLocalAddress)...)
	}
	addr := s.Address
	if addr == "local" {
		addr = "unix"
	}
	return append([]any{addr, s.ClientPort}, hostPort(s.LocalAddress)...)
}

// hostPort splits an address; what is none is a unix socket, of which PgBouncer
// says so much.
func hostPort(address string) []any {
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.Atoi(port)
	if err != nil || bad != nil {
		return []any{"unix", 0}
	}
	return []any{host, n}
}

func pidOf(s *proxy.SessionInfo, kind string) int {
	if kind == "S" {
		return int(s.ServerPID)
	}
	return s.ClientPID
}

func cipherOf(s *proxy.SessionInfo, kind string) string {
	if kind == "S" {
		return s.ServerCipher
	}
	return s.Cipher
}

func (k *client) sessions() [][]any {
	var rows [][]any
	for _, s := range k.c.deps.Control.Sessions() {
		rows = append(rows, []any{
			s.ID, s.User, s.Database, s.Application, s.Address, s.State, s.StateSince, s.HeldBy, s.Tags, s.Target, s.ServerPID, s.TLS, s.Connected,
			s.TxSince, s.Statement, s.RowsWritten, s.TxRows, s.BytesIn, s.BytesOut,
		})
	}
	return rows
}

func (k *client) config() [][]any {
	rows := make([][]any, 0, len(k.c.deps.Settings))
	for _, s := range k.c.deps.Settings {
		rows = append(rows, []any{s.Key, s.Value, s.Default, yesNo(s.Changeable)})
	}
	return rows
}

// holds reports whether a containment of the kind is in force for a whole
// database, or for everything where it is empty.
func (k *client) holds(kind policy.ContainmentKind, database string) bool {
	for _, c := range k.c.deps.Control.Containments() {
		if c.Kind == kind && (c.Scope == policy.Scope{} || database != "" && c.Scope == policy.Scope{Database: database}) {
			return true
		}
	}
	return false
}

func (k *client) databases() [][]any {
	here := map[string]int{}
	for _, s := range k.c.deps.Control.Sessions() {
		here[s.Database]++
	}
	names := maps.Clone(here)
	for key := range k.c.deps.Servers {
		names[key] += 0
	}
	for _, c := range k.c.deps.Control.Containments() {
		if c.Scope.Database != "" {
			names[c.Scope.Database] += 0
		}
	}
	var rows [][]any
	for _, name := range slices.Sorted(maps.Keys(names)) {
		t, ok := k.c.deps.Servers[name]
		if !ok {
			t = k.c.deps.Servers["*"]
		}
		there := cmp.Or(t.Database, name)
		most := cmp.Or(k.c.deps.Limits.MostOfDatabase(name), k.c.deps.Limits.Sessions)
		rows = append(rows, []any{
			name, t.Host, int(t.Port), there, nil, 0, 0, 0, nil, "session", nil, most, here[name], most, here[name],
			oneZero(k.holds(policy.Pause, name)), oneZero(k.holds(policy.Disable, name)), 0, // reserve_pool: reserve_pool_size before PgBouncer 1.21
		})
	}
	return rows
}

// grouped counts sessions by two of their properties.
func (k *client) grouped(key func(*proxy.SessionInfo) [2]string) ([][2]string, map[[2]string][]proxy.SessionInfo) {
	all := map[[2]string][]proxy.SessionInfo{}
	for _, s := range k.c.deps.Control.Sessions() {
		all[key(&s)] = append(all[key(&s)], s)
	}
	keys := slices.SortedFunc(maps.Keys(all), func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return keys, all
}

func (k *client) pools() [][]any {
	keys, all := k.grouped(func(s *proxy.SessionInfo) [2]string { return [2]string{s.Database, s.User} })
	var rows [][]any
	for _, key := range keys {
		var busy, held, idle, login int
		var wait time.Duration
		for _, s := range all[key] {
			switch s.State {
			case "held":
				held++
				wait = max(wait, k.c.deps.Now().Sub(s.StateSince))
			case "idle":
				idle++
			case "login":
				login++
			default:
				busy++
			}
		}
		rows = append(rows, []any{
			key[0], key[1], busy + idle + login, held, 0, 0, busy, 0, 0, idle + held, 0, 0, login,
			int64(wait / time.Second), int64(wait % time.Second / time.Microsecond), "session", nil,
		})
	}
	return rows
}

func (k *client) users() [][]any {
	keys, all := k.grouped(func(s *proxy.SessionInfo) [2]string { return [2]string{s.User} })
	var rows [][]any
	for _, key := range keys {
		n, most := len(all[key]), k.c.deps.Limits.MostOfUser(key[0])
		rows = append(rows, []any{key[0], 0, 0, "session", most, n, most, n})
	}
	return rows
}

// databaseStats are what there is to say of each database; the last is the sum
// of all.
func (k *client) databaseStats() []proxy.DatabaseStats {
	if p := k.c.attached(); p != nil {
		return p.Stats()
	}
	return []proxy.DatabaseStats{{}}
}

// figures are the values of statColumns.
func figures(t *proxy.Tally) []any {
	return []any{
		t.Sessions, t.Transactions, t.Queries, t.BytesIn, t.BytesOut,
		t.TransactionTime.Microseconds(), t.QueryTime.Microseconds(), t.WaitTime.Microseconds(), t.Parses, t.Parses, t.Binds,
	}
}

func (k *client) tallies(of func(*proxy.DatabaseStats) *proxy.Tally) [][]any {
	all := k.databaseStats()
	rows := make([][]any, 0, len(all))
	for i := range all[:len(all)-1] {
		rows = append(rows, append([]any{all[i].Database}, figures(of(&all[i]))...))
	}
	return rows
}

// stats has the live sessions behind PgBouncer's columns.
func (k *client) stats() [][]any {
	live := map[string]int{}
	for _, s := range k.c.deps.Control.Sessions() {
		live[s.Database]++
	}
	all := k.databaseStats()
	rows := make([][]any, 0, len(all))
	for i := range all[:len(all)-1] {
		s := &all[i]
		row := append([]any{s.Database}, figures(&s.Total)...)
		rows = append(rows, append(append(row, figures(&s.Average)...), live[s.Database], s.Total.RowsWritten))
	}
	return rows
}

func (k *client) totals() [][]any {
	all := k.databaseStats()
	sum := &all[len(all)-1]
	return append(totalsOf(sum), []any{"sessions", len(k.c.deps.Control.Sessions())}, []any{"rows_written", sum.Total.RowsWritten})
}

// totalsOf are PgBouncer's rows of SHOW TOTALS, with the names of its fields
// where SHOW STATS has others.
func totalsOf(sum *proxy.DatabaseStats) [][]any {
	var rows [][]any
	for _, part := range []struct {
		prefix string
		tally  *proxy.Tally
	}{{"total_", &sum.Total}, {"avg_", &sum.Average}} {
		values := figures(part.tally)
		for i, c := range strings.Fields(statColumns) {
			if field, other := map[string]string{
				"bytes_received": "client_bytes", "bytes_sent": "server_bytes", "client_parse_count": "ps_client_parse_count",
				"server_parse_count": "ps_server_parse_count", "bind_count": "ps_bind_count",
			}[c]; other {
				c = field
			}
			rows = append(rows, []any{part.prefix + c, values[i]})
		}
	}
	return rows
}

func (k *client) lists() [][]any {
	all := k.c.deps.Control.Sessions()
	login := 0
	databases, users := map[string]bool{}, map[string]bool{}
	for i := range all {
		databases[all[i].Database], users[all[i].User] = true, true
		login += oneZero(all[i].State == "login")
	}
	return [][]any{
		{"databases", len(databases)},
		{"users", len(users)},
		{"pools", len(k.pools())},
		{"free_clients", max(0, k.c.deps.Limits.Sessions-len(all))},
		{"used_clients", len(all)},
		{"login_clients", login},
		{"free_servers", 0},
		{"used_servers", len(all)},
		{"dns_names", 0},
		{"dns_zones", 0},
		{"dns_queries", 0},
		{"dns_pending", 0},
	}
}

func memory() [][]any {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	row := func(name string, used, total uint64) []any { return []any{name, 1, used, total - used, total} }
	return [][]any{row("heap", m.HeapInuse, m.HeapSys), row("stacks", m.StackInuse, m.StackSys)}
}

func (k *client) pauses() [][]any {
	var rows [][]any
	for _, c := range k.c.deps.Control.Containments() {
		rows = append(rows, []any{
			c.ID, string(c.Kind), c.Scope.Database, c.Scope.User, c.Scope.Application, c.Scope.Tag, c.Since, c.Until, c.Author, c.Reason, k.waitsFor(&c),
		})
	}
	return rows
}

// waitsFor says what a pause or a read-only has not come to its end for.
func (k *client) waitsFor(c *control.InForce) string {
	switch {
	case c.Kind == policy.Pause:
		return strings.Join(open(k.c.deps.Control.Sessions(), &c.Scope), ", ")
	case c.Barrier != nil:
		return c.Barrier.Waits
	}
	return ""
}

// locks asks every server that can be asked; of the others a notice says why.
func (k *client) locks(ctx context.Context) ([][]any, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var rows [][]any
	for _, s := range k.c.deps.Locks {
		snap, err := s.Snapshot(ctx, k.c.deps.Control.Sessions)
		if err != nil {
			k.notice(err.Error())
			continue
		}
		for i := range snap.Locks {
			l := &snap.Locks[i]
			row := []any{snap.Server, int64(l.PID), nil, nil, l.Database, nil, nil, l.Relation, l.Type, l.Mode, l.Granted, nil}
			for j := range snap.Processes {
				if p := &snap.Processes[j]; p.PID == l.PID {
					row = []any{snap.Server, int64(l.PID), p.Session, p.User, p.Database, p.Application, p.State, l.Relation, l.Type, l.Mode, l.Granted, fmt.Sprint(p.BlockedBy)}
				}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}
