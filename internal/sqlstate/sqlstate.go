// Package sqlstate names the SQLSTATE codes that lockkeeper sends or acts on.
package sqlstate

// Codes of lockkeeper's own refusals under profile odoo. Class 23 makes Odoo
// show the message in a dialog and not run the request again; Odoo rewrites
// the texts of 23502, 23503 and 23505, so those are left alone.
const (
	OdooRuleRefused = "23G01" // a rule, a freeze or unknown: refused
	OdooReadOnly    = "23G02" // a change while the database is read-only
)

// Codes of PostgreSQL that lockkeeper sends. Source: the manual, appendix A.
// 0A000 is not among them and never to be: it makes Odoo drop dependent views
// and try again.
const (
	CannotEstablishConnection = "08001" // the server could not be reached
	ProtocolViolation         = "08P01" // a malformed message
	InvalidAuthorization      = "28000" // the login is not acceptable
	InvalidPassword           = "28P01" // wrong password, or no such user
	ReadOnlySQLTransaction    = "25006" // a change while the database is read-only (profile postgres)
	InsufficientPrivilege     = "42501" // a rule, a freeze or unknown: refused (profile postgres)
	NotInPrerequisiteState    = "55000" // the database takes no new connections
	TooManyConnections        = "53300" // the session limit is reached
	ProgramLimitExceeded      = "54000" // a text too long to be inspected
	StatementTooComplex       = "54001" // a text that would keep the server's lexer busy
	LockNotAvailable          = "55P03" // try again in a moment: Odoo runs the whole request again
	QueryCanceled             = "57014" // an operator cancelled the statement
	AdminShutdown             = "57P01" // lockkeeper is shutting down, or an operator ended the session
	CannotConnectNow          = "57P03" // not now: paused with refusal, or not ready
	IdleSessionTimeout        = "57P05" // limits.idle_timeout
	IdleInTransactionTimeout  = "25P03" // limits.idle_in_transaction_timeout
	TransactionTimeout        = "25P04" // limits.transaction_timeout
)

// Codes that only the server sends, and that lockkeeper knows.
const (
	InvalidTextRepresentation = "22P02" // what a substituted statement fails with
	InFailedSQLTransaction    = "25P02" // the transaction is aborted: passed on
	SerializationFailure      = "40001" // Odoo runs the whole request again
	DeadlockDetected          = "40P01" // likewise
)
