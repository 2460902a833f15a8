// Package proxy moves bytes between clients and servers and carries decisions out.
package proxy
