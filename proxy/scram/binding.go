package scram

import (
	"crypto"
	_ "crypto/sha256" // SHA-256
	_ "crypto/sha512" // SHA-384 and SHA-512
	"crypto/x509"
)

// EndPoint returns the channel binding data of type tls-server-end-point for a
// server's certificate; nil where the standard does not define any, as for
// Ed25519. Source: RFC 5929, section 4.1.
func EndPoint(c *x509.Certificate) []byte {
	if c == nil {
		return nil
	}
	var hash crypto.Hash
	switch c.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1, // too weak: SHA-256 in their place
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.DSAWithSHA256, x509.ECDSAWithSHA256:
		hash = crypto.SHA256
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		hash = crypto.SHA512
	case x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.PureEd25519:
		return nil
	default:
		return nil
	}
	h := hash.New()
	h.Write(c.Raw)
	return h.Sum(nil)
}
