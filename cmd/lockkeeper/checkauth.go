package main

import (
	"os"

	"lockkeeper/proxy"
	"lockkeeper/proxy/scram"
)

// checkAuth reads what a server's authentication needs, as serve would.
func (r *report) checkAuth(cfg *config, key string, t *proxy.Target) {
	if t.Auth.Method == "" || t.Auth.Method == proxy.AuthRelay {
		return
	}
	if t.Auth.File != "" {
		r.checkUserlist(key, &t.Auth)
	}
	if t.Auth.Method == proxy.AuthPeer && len(cfg.Listen.Unix) == 0 {
		r.warn("server.%s: auth: peer, and listen.unix is empty: nobody can log in, unless a socket unit of systemd opens a unix socket", key)
	}
	if _, err := t.Auth.ReadPassword(); err != nil {
		r.fail("server.%s: %v", key, err)
	}
	for _, file := range []string{t.Auth.File, t.Auth.PasswordFile} {
		info, err := os.Stat(file)
		if file != "" && err == nil && info.Mode().Perm()&0o007 != 0 {
			r.warn("server.%s: %s holds secrets and has mode %04o: chmod 0640 or 0600", key, file, info.Mode().Perm())
		}
	}
	if t.Auth.User != "" && insecure(t) {
		r.warn("server.%s: the secrets that auth_query asks for may pass in the clear", key)
	}
}

// checkUserlist reads an auth_file and warns about secrets that are of no use.
func (r *report) checkUserlist(key string, a *proxy.Auth) {
	list, err := proxy.ReadUserlist(a.File)
	if err != nil {
		for _, line := range lines(err) {
			r.fail("server.%s: %s", key, line)
		}
		return
	}
	kinds := list.Kinds()
	if n := kinds["md5"]; n > 0 && a.Method == proxy.AuthSCRAM {
		r.warn("server.%s: auth_file: %d users have MD5 hashes, with which auth: scram lets nobody in: use their SCRAM secrets or passwords", key, n)
	}
	if n := kinds[scram.Name]; n > 0 && a.Method != proxy.AuthSCRAM {
		r.warn("server.%s: auth_file: %d users have SCRAM secrets, with which lockkeeper cannot log in for clients of auth: %s: use passwords", key, n, a.Method)
	}
}
