// Package pgtest starts throwaway PostgreSQL servers for tests and the demo.
//
// Tests call Shared for a server that all tests of the binary use, each in a
// database of its own (Server.NewDatabase, Server.OdooDatabase), or Start for
// a server that they may configure, stop and kill. Programs that are not tests
// call Run. A server ends with the process that started it, however that ends.
package pgtest
