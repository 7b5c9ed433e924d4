// Package pki keeps the local cluster's certificate authority and the certificates it has issued, as PEM files in one directory.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	validity = 5 * 365 * 24 * time.Hour
	// A certificate is issued anew this long before its end, so that a cluster never dies of age while it runs.
	renewBefore = 90 * 24 * time.Hour
)

// Authority issues certificates into a directory.
type Authority struct {
	dir  string
	now  time.Time
	cert *x509.Certificate
	key  crypto.Signer
}

// Request is what a certificate is to say.
type Request struct {
	// File is the name of the files without .crt and .key.
	File         string
	User         string
	Groups       []string
	Hosts        []string
	Server       bool
	ClientAccess bool
}

// Open loads the authority from dir, or makes a new one there.
func Open(dir string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the certificate directory: %w", err)
	}
	a := &Authority{dir: dir, now: now}
	if err := a.load(); err == nil {
		return a, nil
	}
	return a, a.create()
}

// CertFile is the path of a certificate, KeyFile that of its key.
func (a *Authority) CertFile(file string) string { return filepath.Join(a.dir, file+".crt") }

// KeyFile is the path of a private key.
func (a *Authority) KeyFile(file string) string { return filepath.Join(a.dir, file+".key") }

// Issue writes the certificate, unless the one that is there says the same and is valid for long enough.
func (a *Authority) Issue(r Request) error {
	if a.current(r) {
		return nil
	}
	key, err := a.newKey(r.File)
	if err != nil {
		return err
	}
	template, err := a.template(r)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", r.File, err)
	}
	return writePEM(a.CertFile(r.File), "CERTIFICATE", der)
}

// SigningKey makes a bare key pair, FILE.key and FILE.pub, such as the one that signs ServiceAccount tokens.
func (a *Authority) SigningKey(file string) error {
	public := filepath.Join(a.dir, file+".pub")
	if _, err := os.Stat(public); err == nil {
		return nil
	}
	key, err := a.newKey(file)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encode public key %s: %w", file, err)
	}
	return writePEM(public, "PUBLIC KEY", der)
}

func (a *Authority) load() error {
	cert, err := readCertificate(a.CertFile("ca"))
	if err != nil {
		return err
	}
	if a.now.After(cert.NotAfter.Add(-renewBefore)) {
		return errors.New("the authority's certificate is near its end")
	}
	der, err := readPEM(a.KeyFile("ca"))
	if err != nil {
		return err
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return fmt.Errorf("parse the authority's key: %w", err)
	}
	a.cert, a.key = cert, key
	return nil
}

func (a *Authority) create() error {
	key, err := a.newKey("ca")
	if err != nil {
		return err
	}
	template, err := a.template(Request{User: "dory-cluster-ca"})
	if err != nil {
		return err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("sign the authority's certificate: %w", err)
	}
	if err := writePEM(a.CertFile("ca"), "CERTIFICATE", der); err != nil {
		return err
	}
	a.key = key
	a.cert, err = x509.ParseCertificate(der)
	return err
}

func (a *Authority) template(r Request) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: r.User, Organization: r.Groups},
		NotBefore:    a.now.Add(-time.Hour),
		NotAfter:     a.now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	if r.ClientAccess {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if r.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	return t, nil
}

// current says whether the certificate on disk may stay.
func (a *Authority) current(r Request) bool {
	cert, err := readCertificate(a.CertFile(r.File))
	if err != nil || cert.CheckSignatureFrom(a.cert) != nil || a.now.After(cert.NotAfter.Add(-renewBefore)) {
		return false
	}
	if _, err := os.Stat(a.KeyFile(r.File)); err != nil {
		return false
	}
	for _, host := range r.Hosts {
		if cert.VerifyHostname(host) != nil {
			return false
		}
	}
	return cert.Subject.CommonName == r.User && slices.Equal(cert.Subject.Organization, r.Groups)
}

func (a *Authority) newKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", file, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key %s: %w", file, err)
	}
	return key, writePEM(a.KeyFile(file), "EC PRIVATE KEY", der)
}

func readCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return cert, nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the directory is the cluster's own
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", path)
	}
	return block.Bytes, nil
}

func writePEM(path, kind string, der []byte) error {
	var mode fs.FileMode = 0o644
	if filepath.Ext(path) == ".key" {
		mode = 0o600
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
