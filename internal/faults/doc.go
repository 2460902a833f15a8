// Package faults holds tests that put faults around a lockkeeper process and write down what came of them.
//
// A fault proxy stands between clients and lockkeeper, or between lockkeeper
// and PostgreSQL. It is our own because the tests say after which byte a
// connection is reset, need half-closed connections to stay that, and need
// packets to vanish, so that neither data nor a keepalive probe is
// acknowledged.
//
// Each test ends with a row of docs/compatibility/faults.md, made of what it
// has observed; make faults runs all, the slow ones too, and writes that page.
package faults
