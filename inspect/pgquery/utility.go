package pgquery

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
	"lockkeeper/inspect/lex"
)

// Why statements are Unknown although they were parsed.
const (
	whyDo      = "DO runs a block in another language"
	whyCall    = "CALL runs a procedure that is not known"
	whyExecute = "EXECUTE runs a statement that was prepared elsewhere"
	whyNew     = "a statement that is not known here"
)

// statement records the facts about a whole statement.
func (w *walker) statement(n *pg.Node) {
	w.st.Class = inspect.Read
	if w.query(n) || w.control(n) || w.session(n) || w.wrapper(n) || w.define(n) {
		return
	}
	w.st.Class, w.st.Why = inspect.Unknown, whyNew
}

// query is for the statements that are planned.
func (w *walker) query(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		w.st.Kind = inspect.KindSelect
		if intoOf(v.SelectStmt) != nil {
			w.st.Kind = "SELECT INTO"
		}
	case *pg.Node_InsertStmt:
		w.st.Kind = inspect.KindInsert
	case *pg.Node_UpdateStmt:
		w.st.Kind = inspect.KindUpdate
	case *pg.Node_DeleteStmt:
		w.st.Kind = inspect.KindDelete
	case *pg.Node_MergeStmt:
		w.st.Kind = inspect.KindMerge
	default:
		return false
	}
	w.node(n)
	return true
}

// isQuery reports whether a statement is one that query is for.
func isQuery(n *pg.Node) bool {
	switch n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		return true
	default:
		return false
	}
}

// hasShape reports whether a text of this statement alone may have a shape.
func hasShape(n *pg.Node) bool {
	if t := n.GetTransactionStmt(); t != nil {
		return t.SavepointName != ""
	}
	return isQuery(n)
}

// intoOf returns the INTO clause, which of a UNION is its first SELECT's.
func intoOf(s *pg.SelectStmt) *pg.IntoClause {
	for s.GetLarg() != nil {
		s = s.Larg
	}
	return s.GetIntoClause()
}

var transactionKinds = map[pg.TransactionStmtKind]inspect.Kind{
	pg.TransactionStmtKind_TRANS_STMT_BEGIN:             inspect.KindBegin,
	pg.TransactionStmtKind_TRANS_STMT_START:             inspect.KindStart,
	pg.TransactionStmtKind_TRANS_STMT_COMMIT:            inspect.KindCommit,
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:          inspect.KindRollback,
	pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:         inspect.KindSavepoint,
	pg.TransactionStmtKind_TRANS_STMT_RELEASE:           inspect.KindRelease,
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:       inspect.KindRollbackTo,
	pg.TransactionStmtKind_TRANS_STMT_PREPARE:           inspect.KindPrepareTransaction,
	pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:   inspect.KindCommitPrepared,
	pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED: inspect.KindRollbackPrepared,
}

// control is for transaction control.
func (w *walker) control(n *pg.Node) bool {
	t := n.GetTransactionStmt()
	if t == nil {
		return false
	}
	w.st.Class, w.st.Kind = inspect.Control, transactionKinds[t.Kind]
	if w.st.Kind == "" {
		return false
	}
	if !lex.IsDrawn(t.SavepointName) {
		w.st.Name = t.SavepointName
	}
	w.st.Chain = t.Chain
	w.st.NoBlock = w.st.Kind == inspect.KindCommitPrepared || w.st.Kind == inspect.KindRollbackPrepared
	w.transactionModes(t.Options)
	return true
}

// transactionModes notes the read-write or read-only mode that is asked for;
// of several the last one counts, as in the server.
func (w *walker) transactionModes(options []*pg.Node) {
	for _, o := range options {
		if d := o.GetDefElem(); d.GetDefname() == "transaction_read_only" {
			w.asks(constantText(d.Arg))
		}
	}
}

// asks notes what a value of transaction_read_only asks for. What is not
// known to be true may be false.
func (w *walker) asks(readOnly string) {
	on, known := parseBool(readOnly)
	w.st.AsksReadOnly = known && on
	w.st.AsksReadWrite = !w.st.AsksReadOnly
}

// parseBool reads a setting's Boolean. Source: parse_bool_with_len in
// src/backend/utils/adt/bool.c (unique prefixes count).
func parseBool(s string) (value, known bool) {
	s = strings.ToLower(s)
	switch {
	case s == "":
		return false, false
	case strings.HasPrefix("true", s), strings.HasPrefix("yes", s), s == "on", s == "1":
		return true, true
	case strings.HasPrefix("false", s), strings.HasPrefix("no", s), s == "of", s == "off", s == "0":
		return false, true
	default:
		return false, false
	}
}

// constantText returns a constant as text, "" when it is none. A cast of a
// constant (SET TIME ZONE INTERVAL …) is none.
func constantText(n *pg.Node) string {
	switch v := n.GetNode().(type) {
	case *pg.Node_AConst:
		switch c := v.AConst.Val.(type) {
		case *pg.A_Const_Ival:
			return strconv.Itoa(int(c.Ival.GetIval()))
		case *pg.A_Const_Fval:
			return c.Fval.GetFval()
		case *pg.A_Const_Sval:
			return c.Sval.GetSval()
		case *pg.A_Const_Boolval:
			return strconv.FormatBool(c.Boolval.GetBoolval())
		}
	case *pg.Node_String_:
		return v.String_.Sval
	case *pg.Node_Integer:
		return strconv.Itoa(int(v.Integer.Ival))
	case *pg.Node_Float:
		return v.Float.Fval
	case *pg.Node_Boolean:
		return strconv.FormatBool(v.Boolean.Boolval)
	}
	return ""
}

// session is for statements that change nothing but the session.
func (w *walker) session(n *pg.Node) bool {
	w.st.Class = inspect.Session
	switch v := n.GetNode().(type) {
	case *pg.Node_VariableSetStmt:
		w.set(v.VariableSetStmt)
	case *pg.Node_DiscardStmt:
		w.st.Kind = inspect.KindDiscard
		w.st.NoBlock = v.DiscardStmt.Target == pg.DiscardMode_DISCARD_ALL
	case *pg.Node_DeallocateStmt:
		w.st.Kind, w.st.Name = inspect.KindDeallocate, v.DeallocateStmt.Name
	case *pg.Node_ListenStmt:
		w.st.Kind, w.st.Name = "LISTEN", v.ListenStmt.Conditionname
	case *pg.Node_UnlistenStmt:
		w.st.Kind, w.st.Name = "UNLISTEN", v.UnlistenStmt.Conditionname
	case *pg.Node_NotifyStmt:
		w.st.Kind, w.st.Name = "NOTIFY", v.NotifyStmt.Conditionname
	case *pg.Node_ConstraintsSetStmt:
		w.st.Kind = "SET CONSTRAINTS"
	case *pg.Node_LoadStmt:
		w.st.Kind = "LOAD"
	case *pg.Node_ClosePortalStmt:
		w.st.Kind, w.st.Name = "CLOSE CURSOR", v.ClosePortalStmt.Portalname
	default:
		w.st.Class = inspect.Read
		return false
	}
	return true
}

// set is SET and RESET in all their forms. Source: VariableSetStmt in gram.y
// and ExecSetVariableStmt in guc_funcs.c.
func (w *walker) set(s *pg.VariableSetStmt) {
	w.st.Kind = inspect.KindSet
	set := &inspect.Setting{Name: strings.ToLower(s.Name), Local: s.IsLocal}
	w.st.Set = set
	switch s.Kind {
	case pg.VariableSetKind_VAR_RESET_ALL:
		w.st.Kind, set.Name, set.Reset = inspect.KindReset, "all", true
	case pg.VariableSetKind_VAR_RESET:
		w.st.Kind, set.Reset = inspect.KindReset, true
	case pg.VariableSetKind_VAR_SET_DEFAULT:
		set.Reset = true
	case pg.VariableSetKind_VAR_SET_MULTI:
		w.setModes(s)
	case pg.VariableSetKind_VAR_SET_VALUE, pg.VariableSetKind_VAR_SET_CURRENT, pg.VariableSetKind_VARIABLE_SET_KIND_UNDEFINED:
		set.Value = valueOf(s.Args)
	}
	if set.Name == "transaction_read_only" && s.Kind != pg.VariableSetKind_VAR_SET_MULTI {
		w.asks(set.Value)
	}
}

// setModes is SET TRANSACTION and SET SESSION CHARACTERISTICS AS TRANSACTION:
// several settings in one statement. The read-only mode is the one that is
// reported where it is among them.
func (w *walker) setModes(s *pg.VariableSetStmt) {
	set, prefix := w.st.Set, ""
	switch s.Name {
	case "TRANSACTION":
		set.Local = true
		w.transactionModes(s.Args)
	case "TRANSACTION SNAPSHOT":
		set.Name, set.Local, set.Value = "transaction_snapshot", true, valueOf(s.Args)
		return
	default:
		prefix = "default_"
	}
	set.Name = ""
	for _, a := range s.Args {
		d := a.GetDefElem()
		if set.Name == "" || d.GetDefname() == "transaction_read_only" {
			set.Name, set.Value = prefix+d.GetDefname(), constantText(d.GetArg())
		}
	}
}

// valueOf joins the values of SET as the server does for lists.
func valueOf(args []*pg.Node) string {
	values := make([]string, 0, len(args))
	for _, a := range args {
		values = append(values, constantText(a))
	}
	return strings.Join(values, ", ")
}

// wrapper is for statements that hold, run or move another one.
func (w *walker) wrapper(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_ExplainStmt:
		w.explain(v.ExplainStmt)
	case *pg.Node_PrepareStmt:
		w.prepare(v.PrepareStmt)
	case *pg.Node_ExecuteStmt:
		w.st.Kind = inspect.KindExecute
		w.execute(v.ExecuteStmt)
	case *pg.Node_DeclareCursorStmt:
		w.st.Kind, w.st.Name = "DECLARE CURSOR", v.DeclareCursorStmt.Portalname
		w.hide(inspect.HiddenCursor)
		w.node(v.DeclareCursorStmt.Query)
	case *pg.Node_FetchStmt:
		w.st.Kind, w.st.Name = "FETCH", v.FetchStmt.Portalname
		if v.FetchStmt.Ismove {
			w.st.Kind = "MOVE"
		}
	case *pg.Node_CopyStmt:
		w.copyStmt(v.CopyStmt)
	case *pg.Node_CreateTableAsStmt:
		w.createTableAs(v.CreateTableAsStmt)
	case *pg.Node_VariableShowStmt:
		w.st.Kind, w.st.Name = inspect.KindShow, strings.ToLower(v.VariableShowStmt.Name)
	case *pg.Node_DoStmt:
		w.st.Class, w.st.Kind, w.st.Why = inspect.Unknown, inspect.KindDo, whyDo
		w.hide(inspect.HiddenBlock)
	case *pg.Node_CallStmt:
		w.st.Class, w.st.Kind, w.st.Why = inspect.Unknown, inspect.KindCall, whyCall
		w.hide(inspect.HiddenCall)
		w.st.Name = procedureName(v.CallStmt.Funccall.GetFuncname())
		w.nodes(v.CallStmt.Funccall.GetArgs())
	default:
		return false
	}
	return true
}

// procedureName returns schema.name where a CALL says both, and there is but one
// way to read it; "" elsewhere.
func procedureName(list []*pg.Node) string {
	schema, name, ok := nameOf(list)
	if !ok || len(list) != 2 || strings.Contains(schema+name, ".") {
		return ""
	}
	return schema + "." + name
}

// explain runs its statement with ANALYZE, and plans it only without.
func (w *walker) explain(s *pg.ExplainStmt) {
	inner := &walker{}
	inner.statement(s.Query)
	st := inner.finish()
	if !optionOn(s.Options, "analyze") {
		w.plan(&st)
		return
	}
	w.st = st
	w.rels = inner.rels
	w.st.Kind = "EXPLAIN"
	w.st.NoBlock = false
	w.hide(inspect.HiddenExplain)
}

// plan keeps of a statement what planning it shows: the tables, all read.
func (w *walker) plan(st *inspect.Statement) {
	w.st.Kind = "EXPLAIN"
	w.st.Hidden = st.Hidden & inspect.HiddenFunction
	for _, r := range st.Relations {
		w.rels.add(inspect.Relation{Schema: r.Schema, Name: r.Name, Access: inspect.AccessRead})
	}
}

// optionOn reports whether an option of EXPLAIN, VACUUM and the like is on.
// Of several with one name the last counts. Source: defGetBoolean.
func optionOn(options []*pg.Node, name string) bool {
	on := false
	for _, o := range options {
		if d := o.GetDefElem(); d.GetDefname() == name {
			value, known := parseBool(constantText(d.Arg))
			on = d.Arg == nil || !known || value
		}
	}
	return on
}

// prepare is as dangerous as what it prepares.
func (w *walker) prepare(s *pg.PrepareStmt) {
	inner := &walker{}
	inner.statement(s.Query)
	st := inner.finish()
	w.rels.list = append(w.rels.list, st.Relations...)
	w.st.Kind, w.st.Name, w.st.Prepared = inspect.KindPrepare, s.Name, &st
	w.st.Class, w.st.Why = inspect.Worse(inspect.Session, st.Class), st.Why
	w.st.Hidden, w.st.Calls = st.Hidden|inspect.HiddenPrepared, st.Calls
}

// execute runs a statement that only the session knows. Its facts take the
// place of these where the proxy knows them.
func (w *walker) execute(s *pg.ExecuteStmt) {
	w.st.Class, w.st.Name, w.st.Why = inspect.Unknown, s.Name, whyExecute
	w.hide(inspect.HiddenPrepared)
	w.nodes(s.Params)
}

func (w *walker) copyStmt(s *pg.CopyStmt) {
	w.st.Kind = inspect.KindCopyTo
	access := inspect.AccessRead
	if s.IsFrom {
		w.st.Kind, access = inspect.KindCopyFrom, inspect.AccessInsert
		w.raise(inspect.Write)
	}
	if s.Relation != nil {
		w.rels.add(named(s.Relation, access, inspect.NoLock))
	}
	if s.Query != nil {
		w.hide(inspect.HiddenCopyQuery)
		w.node(s.Query)
	}
	if s.IsProgram || s.Filename != "" {
		w.hide(inspect.HiddenServerSide)
	}
	w.node(s.WhereClause)
}

// createTableAs is CREATE TABLE AS and CREATE MATERIALIZED VIEW, also of an
// EXECUTE.
func (w *walker) createTableAs(s *pg.CreateTableAsStmt) {
	w.st.Class, w.st.Kind = inspect.Define, "CREATE TABLE AS"
	if s.Objtype == pg.ObjectType_OBJECT_MATVIEW {
		w.st.Kind = "CREATE MATERIALIZED VIEW"
	}
	w.hide(inspect.HiddenCreateAs)
	w.rels.add(named(s.Into.GetRel(), inspect.AccessDefine, inspect.NoLock))
	if e := s.Query.GetExecuteStmt(); e != nil {
		w.execute(e)
		return
	}
	w.node(s.Query)
}
