package pki

import (
	"crypto/x509"
	"os"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, at time.Time) *Authority {
	t.Helper()
	a, err := Open(dir, at)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, r Request) []byte {
	t.Helper()
	if err := a.Issue(r); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(a.CertFile(r.File))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestIssuedCertificatesVerify(t *testing.T) {
	a := open(t, t.TempDir(), now)
	issue(t, a, Request{File: "api", User: "api", Hosts: []string{"10.83.0.1", "kubernetes.default.svc"}, Server: true})
	issue(t, a, Request{File: "kubelet", User: "system:node:x", Groups: []string{"system:nodes"}, ClientAccess: true})
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	for file, options := range map[string]x509.VerifyOptions{
		"api":     {DNSName: "10.83.0.1", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		"kubelet": {KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	} {
		options.Roots, options.CurrentTime = roots, now
		cert, err := readCertificate(a.CertFile(file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(options); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if info, err := os.Stat(a.KeyFile(file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: key is readable by others: %v %v", file, info.Mode(), err)
		}
	}
}

func TestIssueKeepsWhatIsCurrent(t *testing.T) {
	dir := t.TempDir()
	r := Request{File: "api", User: "api", Hosts: []string{"10.83.0.1"}, Server: true}
	first := issue(t, open(t, dir, now), r)
	if again := issue(t, open(t, dir, now.Add(time.Hour)), r); string(again) != string(first) {
		t.Error("issued anew although nothing had changed")
	}
	r.Hosts = append(r.Hosts, "10.84.0.1")
	if wider := issue(t, open(t, dir, now), r); string(wider) == string(first) {
		t.Error("a new host needs a new certificate")
	}
	r.User = "other"
	a := open(t, dir, now)
	second := issue(t, a, r)
	if late := issue(t, open(t, dir, now.Add(validity-renewBefore+time.Minute)), r); string(late) == string(second) {
		t.Error("a certificate near its end was kept")
	}
}

func TestSigningKeyIsMadeOnce(t *testing.T) {
	a := open(t, t.TempDir(), now)
	if err := a.SigningKey("tokens"); err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(a.KeyFile("tokens"))
	if err := a.SigningKey("tokens"); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(a.KeyFile("tokens")); string(again) != string(first) {
		t.Error("a new signing key would make every token void")
	}
}
