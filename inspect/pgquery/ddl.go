package pgquery

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// define is for DDL, LOCK TABLE, TRUNCATE (which is Write) and maintenance.
// Lock modes are those that PostgreSQL 15 takes.
func (w *walker) define(n *pg.Node) bool {
	w.st.Class = inspect.Define
	for _, group := range []func(*pg.Node) bool{w.defineTable, w.defineOnTable, w.maintain, w.defineObject, w.defineGlobal} {
		if group(n) {
			return true
		}
	}
	w.st.Kind = simpleKind(n)
	return w.st.Kind != ""
}

// touch records DDL on a table that exists.
func (w *walker) touch(rv *pg.RangeVar, lock inspect.LockMode) {
	if rv != nil {
		w.rels.add(named(rv, inspect.AccessDefine, lock))
	}
}

// touchName is touch for a name spelled as a list of strings.
func (w *walker) touchName(list []*pg.Node, lock inspect.LockMode) {
	if schema, name, ok := nameOf(list); ok {
		w.rels.add(inspect.Relation{Schema: schema, Name: name, Access: inspect.AccessDefine, Lock: lock})
	}
}

// defineTable is for what creates, changes, drops or empties tables and what
// is like a table.
func (w *walker) defineTable(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		w.st.Kind = "CREATE TABLE"
		w.createTable(v.CreateStmt)
	case *pg.Node_CreateForeignTableStmt:
		w.st.Kind = "CREATE FOREIGN TABLE"
		w.createTable(v.CreateForeignTableStmt.BaseStmt)
	case *pg.Node_AlterTableStmt:
		w.alterTable(v.AlterTableStmt)
	case *pg.Node_RenameStmt:
		w.rename(v.RenameStmt)
	case *pg.Node_AlterObjectSchemaStmt:
		w.st.Kind = tag("ALTER", v.AlterObjectSchemaStmt.ObjectType)
		w.touch(v.AlterObjectSchemaStmt.Relation, inspect.AccessExclusive)
	case *pg.Node_DropStmt:
		w.drop(v.DropStmt)
	case *pg.Node_TruncateStmt:
		w.truncate(v.TruncateStmt)
	case *pg.Node_LockStmt:
		w.st.Kind = inspect.KindLockTable
		for _, r := range v.LockStmt.Relations {
			w.touch(r.GetRangeVar(), inspect.LockMode(v.LockStmt.Mode))
		}
	case *pg.Node_ViewStmt:
		w.createView(v.ViewStmt)
	case *pg.Node_CreateSeqStmt:
		w.st.Kind = "CREATE SEQUENCE"
		w.touch(v.CreateSeqStmt.Sequence, inspect.NoLock)
	case *pg.Node_AlterSeqStmt:
		w.st.Kind = "ALTER SEQUENCE"
		w.touch(v.AlterSeqStmt.Sequence, inspect.ShareRowExclusive)
	case *pg.Node_CompositeTypeStmt:
		w.st.Kind = "CREATE TYPE"
	case *pg.Node_CreateSchemaStmt:
		w.createSchema(v.CreateSchemaStmt)
	default:
		return false
	}
	return true
}

// truncate is Write, with the lock that it takes. CASCADE reaches tables that
// the text does not name.
func (w *walker) truncate(s *pg.TruncateStmt) {
	w.st.Class, w.st.Kind = inspect.Write, inspect.KindTruncate
	for _, n := range s.Relations {
		r := named(n.GetRangeVar(), inspect.AccessTruncate, inspect.AccessExclusive)
		r.Bound = inspect.BoundNone
		w.rels.add(r)
	}
}

// createTable touches, beside the new table, those it refers to.
func (w *walker) createTable(s *pg.CreateStmt) {
	w.touch(s.Relation, inspect.NoLock)
	parents := inspect.ShareUpdateExclusive
	if s.Partbound != nil {
		parents = inspect.AccessExclusive
	}
	for _, n := range s.InhRelations {
		w.touch(n.GetRangeVar(), parents)
	}
	for _, n := range s.TableElts {
		w.tableElement(n)
	}
	for _, n := range s.Constraints {
		w.references(n.GetConstraint())
	}
}

func (w *walker) tableElement(n *pg.Node) {
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnDef:
		w.column(v.ColumnDef)
	case *pg.Node_Constraint:
		w.references(v.Constraint)
	case *pg.Node_TableLikeClause:
		w.rels.add(named(v.TableLikeClause.Relation, inspect.AccessRead, inspect.AccessShare))
	}
}

// column walks a column's default and constraints.
func (w *walker) column(c *pg.ColumnDef) {
	if c.GetRawDefault() != nil {
		w.node(c.RawDefault)
	}
	for _, n := range c.GetConstraints() {
		w.references(n.GetConstraint())
	}
}

// references touches the table that a foreign key refers to, and walks a
// CHECK or DEFAULT expression for functions.
func (w *walker) references(c *pg.Constraint) {
	if c.GetContype() == pg.ConstrType_CONSTR_FOREIGN {
		w.touch(c.Pktable, inspect.ShareRowExclusive)
	}
	if c.GetRawExpr() != nil {
		w.node(c.RawExpr)
	}
}

// createView replaces the view under a lock that blocks its readers; a view
// that is new blocks nobody.
func (w *walker) createView(s *pg.ViewStmt) {
	w.st.Kind = "CREATE VIEW"
	lock := inspect.NoLock
	if s.Replace {
		lock = inspect.AccessExclusive
	}
	w.touch(s.View, lock)
	w.node(s.Query)
	w.st.Class = inspect.Define
}

// createSchema may hold CREATE TABLE, INDEX, VIEW, SEQUENCE, TRIGGER, GRANT.
func (w *walker) createSchema(s *pg.CreateSchemaStmt) {
	for _, n := range s.SchemaElts {
		w.define(n)
	}
	w.st.Kind = "CREATE SCHEMA"
}

// rename of an index takes less than that of anything else in pg_class.
func (w *walker) rename(s *pg.RenameStmt) {
	object, lock := s.RenameType, inspect.AccessExclusive
	if object == pg.ObjectType_OBJECT_COLUMN {
		object = s.RelationType
	}
	if object == pg.ObjectType_OBJECT_INDEX {
		lock = inspect.ShareUpdateExclusive
	}
	if object == pg.ObjectType_OBJECT_ATTRIBUTE {
		lock = inspect.NoLock
	}
	w.st.Kind = tag("ALTER", object)
	w.touch(s.Relation, lock)
	if s.Relation != nil && isRelation(s.RenameType) {
		w.st.Name = s.Newname
	}
	// ALTER INDEX … RENAME works on tables, too (RangeVarCallbackForAlterRelation
	// in src/backend/commands/tablecmds.c).
	if s.Relation != nil && (s.RenameType == pg.ObjectType_OBJECT_TABLE || s.RenameType == pg.ObjectType_OBJECT_INDEX) {
		w.rels.add(named(s.Relation, inspect.AccessRename, lock))
	}
}

// drop knows the table of what belongs to one; of an index only its own name.
func (w *walker) drop(s *pg.DropStmt) {
	w.st.Kind = tag("DROP", s.RemoveType)
	lock := inspect.AccessExclusive
	if s.Concurrent {
		lock = inspect.ShareUpdateExclusive
		w.st.Concurrently, w.st.NoBlock = true, true
	}
	for _, n := range s.Objects {
		list := listOf(n)
		switch {
		case isRelation(s.RemoveType):
			w.touchName(list, lock)
		case isOnRelation(s.RemoveType) && len(list) > 1:
			w.touchName(list[:len(list)-1], lock)
		}
	}
}

// defineOnTable is for objects that belong to a table, or speak of one.
func (w *walker) defineOnTable(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_IndexStmt:
		w.createIndex(v.IndexStmt)
	case *pg.Node_CreateTrigStmt:
		w.st.Kind = "CREATE TRIGGER"
		w.touch(v.CreateTrigStmt.Relation, inspect.ShareRowExclusive)
		w.touch(v.CreateTrigStmt.Constrrel, inspect.AccessShare)
	case *pg.Node_RuleStmt:
		w.st.Kind = "CREATE RULE"
		w.touch(v.RuleStmt.Relation, inspect.AccessExclusive)
		w.nodes(v.RuleStmt.Actions) // what they do happens later, in statements that do not show it
		w.rels.notKeyed()           // for as many rows as these change
	case *pg.Node_CreatePolicyStmt:
		w.st.Kind = "CREATE POLICY"
		w.touch(v.CreatePolicyStmt.Table, inspect.AccessExclusive)
	case *pg.Node_AlterPolicyStmt:
		w.st.Kind = "ALTER POLICY"
		w.touch(v.AlterPolicyStmt.Table, inspect.AccessExclusive)
	case *pg.Node_CreateStatsStmt:
		w.st.Kind = "CREATE STATISTICS"
		for _, r := range v.CreateStatsStmt.Relations {
			w.touch(r.GetRangeVar(), inspect.ShareUpdateExclusive)
		}
	case *pg.Node_CommentStmt:
		w.st.Kind = "COMMENT"
		w.describe(v.CommentStmt.Objtype, v.CommentStmt.Object)
	case *pg.Node_SecLabelStmt:
		w.st.Kind = "SECURITY LABEL"
		w.describe(v.SecLabelStmt.Objtype, v.SecLabelStmt.Object)
	case *pg.Node_GrantStmt:
		w.grant(v.GrantStmt)
	case *pg.Node_CreatePublicationStmt:
		w.st.Kind = "CREATE PUBLICATION"
		w.publish(v.CreatePublicationStmt.Pubobjects)
	case *pg.Node_AlterPublicationStmt:
		w.st.Kind = "ALTER PUBLICATION"
		w.publish(v.AlterPublicationStmt.Pubobjects)
	case *pg.Node_AlterObjectDependsStmt:
		w.st.Kind = tag("ALTER", v.AlterObjectDependsStmt.ObjectType)
		w.touch(v.AlterObjectDependsStmt.Relation, inspect.AccessExclusive)
	default:
		return false
	}
	return true
}

func (w *walker) createIndex(s *pg.IndexStmt) {
	w.st.Kind = "CREATE INDEX"
	lock := inspect.Share
	if s.Concurrent {
		lock = inspect.ShareUpdateExclusive
		w.st.Concurrently, w.st.NoBlock = true, true
	}
	w.touch(s.Relation, lock)
	w.nodes(s.IndexParams)
	w.node(s.WhereClause)
}

// describe is COMMENT ON and SECURITY LABEL ON: of a relation or column under
// SHARE UPDATE EXCLUSIVE, of what belongs to a table under ACCESS SHARE.
// Source: get_object_address and CommentObject.
func (w *walker) describe(t pg.ObjectType, object *pg.Node) {
	list := listOf(object)
	switch {
	case isRelation(t):
		w.touchName(list, inspect.ShareUpdateExclusive)
	case t == pg.ObjectType_OBJECT_COLUMN && len(list) > 1:
		w.touchName(list[:len(list)-1], inspect.ShareUpdateExclusive)
	case isOnRelation(t) && len(list) > 1:
		w.touchName(list[:len(list)-1], inspect.AccessShare)
	}
}

// grant takes no lock that anybody waits for.
func (w *walker) grant(s *pg.GrantStmt) {
	w.st.Kind = "REVOKE"
	if s.IsGrant {
		w.st.Kind = "GRANT"
	}
	if s.Targtype != pg.GrantTargetType_ACL_TARGET_OBJECT {
		return
	}
	for _, n := range s.Objects {
		w.touch(n.GetRangeVar(), inspect.AccessShare)
	}
}

func (w *walker) publish(objects []*pg.Node) {
	for _, n := range objects {
		w.touch(n.GetPublicationObjSpec().GetPubtable().GetRelation(), inspect.ShareUpdateExclusive)
	}
}

// maintain is for VACUUM and its kin, and what else an administrator runs.
func (w *walker) maintain(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_VacuumStmt:
		w.vacuum(v.VacuumStmt)
	case *pg.Node_ClusterStmt:
		w.st.Kind = "CLUSTER"
		w.st.NoBlock = v.ClusterStmt.Relation == nil
		w.rewrite(v.ClusterStmt.Relation, inspect.AccessExclusive)
	case *pg.Node_ReindexStmt:
		w.reindex(v.ReindexStmt)
	case *pg.Node_RefreshMatViewStmt:
		w.refresh(v.RefreshMatViewStmt)
	case *pg.Node_CheckPointStmt:
		w.st.Kind = "CHECKPOINT"
	case *pg.Node_AlterSystemStmt:
		w.st.Kind, w.st.NoBlock = "ALTER SYSTEM", true
	default:
		return false
	}
	return true
}

// rewrite is touch for what writes the whole table anew.
func (w *walker) rewrite(rv *pg.RangeVar, lock inspect.LockMode) {
	if rv != nil {
		r := named(rv, inspect.AccessDefine, lock)
		r.Rewrite = true
		w.rels.add(r)
	}
}

// vacuum is VACUUM and ANALYZE; only the first cannot run in a block.
func (w *walker) vacuum(s *pg.VacuumStmt) {
	w.st.Kind = "ANALYZE"
	if s.IsVacuumcmd {
		w.st.Kind, w.st.NoBlock = "VACUUM", true
	}
	full := s.IsVacuumcmd && optionOn(s.Options, "full")
	for _, n := range s.Rels {
		if rv := n.GetVacuumRelation().GetRelation(); full {
			w.rewrite(rv, inspect.AccessExclusive)
		} else {
			w.touch(rv, inspect.ShareUpdateExclusive)
		}
	}
}

// reindex of a table blocks its writers; of an index, whose table the text
// does not name, its readers.
func (w *walker) reindex(s *pg.ReindexStmt) {
	w.st.Kind = "REINDEX"
	onIndex := s.Kind == pg.ReindexObjectType_REINDEX_OBJECT_INDEX
	onTable := s.Kind == pg.ReindexObjectType_REINDEX_OBJECT_TABLE
	w.st.Concurrently = optionOn(s.Params, "concurrently")
	w.st.NoBlock = w.st.Concurrently || !onIndex && !onTable
	switch {
	case w.st.Concurrently:
		w.touch(s.Relation, inspect.ShareUpdateExclusive)
	case onIndex:
		w.touch(s.Relation, inspect.AccessExclusive)
	default:
		w.touch(s.Relation, inspect.Share)
	}
}

// refresh with CONCURRENTLY runs in a transaction and waits for nobody by
// design, so that it is not Concurrently in the sense of inspect.Statement.
func (w *walker) refresh(s *pg.RefreshMatViewStmt) {
	w.st.Kind = "REFRESH MATERIALIZED VIEW"
	if s.Concurrent {
		w.touch(s.Relation, inspect.Exclusive)
		return
	}
	w.rewrite(s.Relation, inspect.AccessExclusive)
}

// defineObject is for objects that are not in pg_class.
func (w *walker) defineObject(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_CreateFunctionStmt:
		w.st.Kind = "CREATE FUNCTION"
		if v.CreateFunctionStmt.IsProcedure {
			w.st.Kind = "CREATE PROCEDURE"
		}
		w.setClause(v.CreateFunctionStmt.Options)
	case *pg.Node_AlterFunctionStmt:
		w.st.Kind = tag("ALTER", v.AlterFunctionStmt.Objtype)
		w.setClause(v.AlterFunctionStmt.Actions)
	case *pg.Node_DefineStmt:
		w.st.Kind = tag("CREATE", v.DefineStmt.Kind)
	case *pg.Node_AlterOwnerStmt:
		w.st.Kind = tag("ALTER", v.AlterOwnerStmt.ObjectType)
		w.touch(v.AlterOwnerStmt.Relation, inspect.AccessExclusive)
	case *pg.Node_GrantRoleStmt:
		w.st.Kind = "REVOKE ROLE"
		if v.GrantRoleStmt.IsGrant {
			w.st.Kind = "GRANT ROLE"
		}
	case *pg.Node_CreateRoleStmt:
		w.st.Kind = "CREATE ROLE"
	default:
		return false
	}
	return true
}

// setClause notes a SET clause of a function: it is in force while the
// function runs.
func (w *walker) setClause(options []*pg.Node) {
	for _, o := range options {
		if o.GetDefElem().GetDefname() == "set" {
			w.hide(inspect.HiddenSettings)
		}
	}
}

// defineGlobal is for what cannot run in a transaction block because it
// reaches beyond the database. Source: PreventInTransactionBlock in
// src/backend/tcop/utility.c and src/backend/commands.
func (w *walker) defineGlobal(n *pg.Node) bool {
	switch v := n.GetNode().(type) {
	case *pg.Node_CreatedbStmt:
		w.st.Kind, w.st.NoBlock = "CREATE DATABASE", true
	case *pg.Node_DropdbStmt:
		w.st.Kind, w.st.NoBlock = "DROP DATABASE", true
	case *pg.Node_AlterDatabaseStmt:
		w.st.Kind = "ALTER DATABASE"
		w.st.NoBlock = option(v.AlterDatabaseStmt.Options, "tablespace") != nil
	case *pg.Node_CreateTableSpaceStmt:
		w.st.Kind, w.st.NoBlock = "CREATE TABLESPACE", true
	case *pg.Node_DropTableSpaceStmt:
		w.st.Kind, w.st.NoBlock = "DROP TABLESPACE", true
	case *pg.Node_CreateSubscriptionStmt:
		w.st.Kind = "CREATE SUBSCRIPTION"
		w.st.NoBlock = createsSlot(v.CreateSubscriptionStmt.Options)
	case *pg.Node_AlterSubscriptionStmt:
		w.st.Kind = "ALTER SUBSCRIPTION"
		w.st.NoBlock = refreshes(v.AlterSubscriptionStmt)
	case *pg.Node_DropSubscriptionStmt:
		w.st.Kind, w.st.NoBlock = "DROP SUBSCRIPTION", true // unless it has no slot, which the text does not say
	default:
		return false
	}
	return true
}

// option returns the last option so named, or nil.
func option(options []*pg.Node, name string) *pg.DefElem {
	var last *pg.DefElem
	for _, o := range options {
		if d := o.GetDefElem(); d.GetDefname() == name {
			last = d
		}
	}
	return last
}

// createsSlot reports whether CREATE SUBSCRIPTION creates a replication slot:
// by default, if it connects.
func createsSlot(options []*pg.Node) bool {
	isOff := func(name string) bool { return option(options, name) != nil && !optionOn(options, name) }
	return !isOff("connect") && !isOff("create_slot")
}

// refreshes reports whether ALTER SUBSCRIPTION refreshes its publications.
func refreshes(s *pg.AlterSubscriptionStmt) bool {
	byDefault := map[pg.AlterSubscriptionType]bool{
		pg.AlterSubscriptionType_ALTER_SUBSCRIPTION_SET_PUBLICATION:  true,
		pg.AlterSubscriptionType_ALTER_SUBSCRIPTION_ADD_PUBLICATION:  true,
		pg.AlterSubscriptionType_ALTER_SUBSCRIPTION_DROP_PUBLICATION: true,
	}[s.Kind]
	if s.Kind == pg.AlterSubscriptionType_ALTER_SUBSCRIPTION_REFRESH {
		return true
	}
	return byDefault && (option(s.Options, "refresh") == nil || optionOn(s.Options, "refresh"))
}

// simpleKinds are DDL statements of which nothing but the kind is of
// interest, by the name of their node.
var simpleKinds = map[string]inspect.Kind{
	"alter_collation_stmt":             "ALTER COLLATION",
	"alter_database_refresh_coll_stmt": "ALTER DATABASE",
	"alter_database_set_stmt":          "ALTER DATABASE",
	"alter_default_privileges_stmt":    "ALTER DEFAULT PRIVILEGES",
	"alter_domain_stmt":                "ALTER DOMAIN",
	"alter_enum_stmt":                  "ALTER TYPE",
	"alter_event_trig_stmt":            "ALTER EVENT TRIGGER",
	"alter_extension_contents_stmt":    "ALTER EXTENSION",
	"alter_extension_stmt":             "ALTER EXTENSION",
	"alter_fdw_stmt":                   "ALTER FOREIGN DATA WRAPPER",
	"alter_foreign_server_stmt":        "ALTER SERVER",
	"alter_op_family_stmt":             "ALTER OPERATOR FAMILY",
	"alter_operator_stmt":              "ALTER OPERATOR",
	"alter_role_set_stmt":              "ALTER ROLE",
	"alter_role_stmt":                  "ALTER ROLE",
	"alter_stats_stmt":                 "ALTER STATISTICS",
	"alter_table_move_all_stmt":        "ALTER TABLE",
	"alter_table_space_options_stmt":   "ALTER TABLESPACE",
	"alter_tsconfiguration_stmt":       "ALTER TEXT SEARCH CONFIGURATION",
	"alter_tsdictionary_stmt":          "ALTER TEXT SEARCH DICTIONARY",
	"alter_type_stmt":                  "ALTER TYPE",
	"alter_user_mapping_stmt":          "ALTER USER MAPPING",
	"create_am_stmt":                   "CREATE ACCESS METHOD",
	"create_cast_stmt":                 "CREATE CAST",
	"create_conversion_stmt":           "CREATE CONVERSION",
	"create_domain_stmt":               "CREATE DOMAIN",
	"create_enum_stmt":                 "CREATE TYPE",
	"create_event_trig_stmt":           "CREATE EVENT TRIGGER",
	"create_extension_stmt":            "CREATE EXTENSION",
	"create_fdw_stmt":                  "CREATE FOREIGN DATA WRAPPER",
	"create_foreign_server_stmt":       "CREATE SERVER",
	"create_op_class_stmt":             "CREATE OPERATOR CLASS",
	"create_op_family_stmt":            "CREATE OPERATOR FAMILY",
	"create_plang_stmt":                "CREATE LANGUAGE",
	"create_range_stmt":                "CREATE TYPE",
	"create_transform_stmt":            "CREATE TRANSFORM",
	"create_user_mapping_stmt":         "CREATE USER MAPPING",
	"drop_owned_stmt":                  "DROP OWNED",
	"drop_role_stmt":                   "DROP ROLE",
	"drop_user_mapping_stmt":           "DROP USER MAPPING",
	"import_foreign_schema_stmt":       "IMPORT FOREIGN SCHEMA",
	"reassign_owned_stmt":              "REASSIGN OWNED",
}

// simpleKind returns the kind of a statement in simpleKinds, or what its
// node's name says when it is DDL that is not known: "" when it is neither.
func simpleKind(n *pg.Node) inspect.Kind {
	m := n.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if f == nil {
		return ""
	}
	name := string(f.Name())
	if kind, ok := simpleKinds[name]; ok {
		return kind
	}
	for _, verb := range []string{"create_", "alter_", "drop_"} {
		if strings.HasPrefix(name, verb) {
			return inspect.Kind(strings.ToUpper(strings.ReplaceAll(strings.TrimSuffix(name, "_stmt"), "_", " ")))
		}
	}
	return ""
}
