// Package sqlstate names the SQLSTATE codes that lockkeeper sends or acts on.
package sqlstate

// Codes of lockkeeper's own refusals under profile odoo. Class 23 makes Odoo
// show the message in a dialog and not run the request again; Odoo rewrites
// the texts of 23502, 23503 and 23505, so those are left alone.
const (
	OdooRuleRefused = "23G01" // a rule refused the statement
	OdooReadOnly    = "23G02" // a write while the database is read-only
)

// Codes of PostgreSQL that lockkeeper sends. Source: the manual, appendix A.
const (
	ProtocolViolation          = "08P01" // a malformed message
	InsufficientPrivilege      = "42501" // a rule refused the statement (profile postgres)
	ReadOnlySQLTransaction     = "25006" // a write while the database is read-only (profile postgres)
	InFailedSQLTransaction     = "25P02" // sent by the server only: the transaction is aborted
	TooManyConnections         = "53300" // the session limit is reached
	StatementTooComplex        = "54001" // sent by the server only
	ProgramLimitExceeded       = "54000" // a text too long to be inspected
	LockNotAvailable           = "55P03" // try again in a moment: Odoo runs the whole request again
	QueryCanceled              = "57014" // an operator cancelled the statement
	AdminShutdown              = "57P01" // lockkeeper is shutting down
	CannotConnectNow           = "57P03" // not now: paused with refusal, or the server is not there
	InvalidAuthorization       = "28000" // the login is not acceptable
	ActiveSQLTransaction       = "25001" // sent by the server only: needs to be outside a transaction
	SerializationFailure       = "40001" // sent by the server only: Odoo runs the whole request again
	DeadlockDetected           = "40P01" // sent by the server only: Odoo runs the whole request again
	IdleInTransactionTimeout   = "25P03" // sent by the server only
	InvalidTextRepresentation  = "22P02" // what a substituted statement fails with in the server
	ConnectionFailure          = "08006" // the server went away
	UnableToEstablishSQLClient = "08001" // the server could not be reached
)
