package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
)

// What the Secret holds. The first four are as cert-controller and cert-manager have them.
const (
	keyServing    = "tls.crt"
	keyServingKey = "tls.key"
	keyCA         = "ca.crt"
	keyCAKey      = "ca.key"
	// The authority that follows. It signs nothing before the API server trusts it.
	keyNextCA    = "next-ca.crt"
	keyNextCAKey = "next-ca.key"
)

const (
	authorityName = "dory-webhook-ca"
	organisation  = "dory.io"
	// certificateBlock is the type of PEM blocks that hold certificates.
	certificateBlock = "CERTIFICATE"
	// backdated allows for clocks that are late.
	backdated = time.Hour
	// mostAuthorities bounds the bundle: the present one, the next, and the last two.
	mostAuthorities = 4
)

// Lifetimes of certificates. Each is replaced when a third of its time is left, so that Serving must be below a third of
// Authority.
type Lifetimes struct {
	Authority, Serving time.Duration
	// Settling is how long the API servers have to learn of an authority before it is used.
	Settling time.Duration
}

// defaultLifetimes leave a month for an operator that nobody runs.
var defaultLifetimes = Lifetimes{Authority: 2 * 365 * 24 * time.Hour, Serving: 90 * 24 * time.Hour, Settling: time.Minute}

// checkAfter looks often enough, and soon while an authority waits for its turn.
func (l Lifetimes) checkAfter(secret map[string][]byte) time.Duration {
	if len(secret[keyNextCA]) > 0 {
		return l.Settling
	}
	const often, seldom = 12, 12 * time.Hour
	return min(seldom, l.Serving/often)
}

// step is what is to be done to the Secret.
type step string

const (
	// stepNone leaves it as it is.
	stepNone step = "None"
	// stepBegin makes all of it, where nothing can be broken by that.
	stepBegin step = "Begin"
	// stepPrepare makes the authority that follows.
	stepPrepare step = "Prepare"
	// stepSwitch has the authority that follows sign the certificate from now on.
	stepSwitch step = "Switch"
	// stepRenew has the present authority sign another certificate.
	stepRenew step = "Renew"
)

// seen is what there is.
type seen struct {
	// secret holds certificates and keys.
	secret map[string][]byte
	// bundle is what the API server trusts, and since when.
	bundle      []byte
	bundleSince time.Time
}

// issuer makes certificates, and judges them. It has no clock of its own.
type issuer struct {
	rotator   rotator.CertRotator
	lifetimes Lifetimes
}

func newIssuer(dnsNames []string, lifetimes Lifetimes) *issuer {
	return &issuer{lifetimes: lifetimes, rotator: rotator.CertRotator{
		CAName: authorityName, CAOrganization: organisation, DNSName: dnsNames[0], ExtraDNSNames: dnsNames[1:],
		ExtKeyUsages: &[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}}
}

// next says what is to be done. No step takes away what a replica serves with or the API server trusts: an authority is
// made known first and used later.
func (i *issuer) next(s seen, now time.Time) step {
	ca, caKey := s.secret[keyCA], s.secret[keyCAKey]
	if !i.serves(s.secret, now) && len(authorities(s.bundle, now)) == 0 {
		return stepBegin
	}
	if !i.lasts(ca, caKey, now.Add(i.lifetimes.Authority/3)) {
		if next := i.nextAuthority(s, now); next != stepNone {
			return next
		}
	}
	if i.lasts(ca, caKey, now) && !i.serves(s.secret, now.Add(i.lifetimes.Serving/3)) {
		return stepRenew
	}
	return stepNone
}

func (i *issuer) nextAuthority(s seen, now time.Time) step {
	switch {
	case !i.lasts(s.secret[keyNextCA], s.secret[keyNextCAKey], now.Add(i.lifetimes.Authority/3)):
		return stepPrepare
	case trusted(s.bundle, s.secret[keyNextCA]) && now.Sub(s.bundleSince) >= i.lifetimes.Settling:
		return stepSwitch
	default:
		return stepNone
	}
}

// serves says whether the certificate is good at a time, under the present authority.
func (i *issuer) serves(secret map[string][]byte, at time.Time) bool {
	good, err := rotator.ValidCert(secret[keyCA], secret[keyServing], secret[keyServingKey], i.rotator.DNSName, i.rotator.ExtKeyUsages, at)
	return good && err == nil
}

// lasts says whether an authority is good at a time.
func (i *issuer) lasts(cert, key []byte, at time.Time) bool {
	good, err := rotator.ValidCert(cert, cert, key, authorityName, nil, at)
	return good && err == nil
}

// take makes what a step asks for.
func (i *issuer) take(what step, secret map[string][]byte, now time.Time) (map[string][]byte, error) {
	secret = maps.Clone(secret)
	if secret == nil {
		secret = map[string][]byte{}
	}
	switch what {
	case stepBegin:
		if err := i.authority(secret, now); err != nil {
			return nil, err
		}
		fallthrough
	case stepSwitch:
		secret[keyCA], secret[keyCAKey] = secret[keyNextCA], secret[keyNextCAKey]
		delete(secret, keyNextCA)
		delete(secret, keyNextCAKey)
		return secret, i.sign(secret, now)
	case stepRenew:
		return secret, i.sign(secret, now)
	case stepPrepare:
		return secret, i.authority(secret, now)
	default:
		return secret, nil
	}
}

func (i *issuer) authority(secret map[string][]byte, now time.Time) error {
	made, err := i.rotator.CreateCACert(now.Add(-backdated), now.Add(i.lifetimes.Authority))
	if err != nil {
		return fmt.Errorf("making a certificate authority for the webhook: %w", err)
	}
	secret[keyNextCA], secret[keyNextCAKey] = made.CertPEM, made.KeyPEM
	return nil
}

func (i *issuer) sign(secret map[string][]byte, now time.Time) error {
	by, err := parseAuthority(secret[keyCA], secret[keyCAKey])
	if err != nil {
		return fmt.Errorf("reading the webhook's certificate authority: %w", err)
	}
	secret[keyServing], secret[keyServingKey], err = i.serving(by, now)
	if err != nil {
		return fmt.Errorf("making a certificate for the webhook: %w", err)
	}
	return nil
}

// serving has a key on a curve. API servers speak HTTP/1.1 to webhooks, so that each of a thousand evictions at once has a
// connection of its own, and handshakes with cert-controller's RSA keys cost many times as much.
func (i *issuer) serving(by *rotator.KeyPairArtifacts, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	const bits = 127
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), bits))
	if err != nil {
		return nil, nil, err
	}
	dnsNames := append([]string{i.rotator.DNSName}, i.rotator.ExtraDNSNames...)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: i.rotator.DNSName}, DNSNames: dnsNames,
		NotBefore: now.Add(-backdated), NotAfter: now.Add(i.lifetimes.Serving),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: *i.rotator.ExtKeyUsages, BasicConstraintsValid: true,
	}, by.Cert, private.Public(), by.Key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}

func parseAuthority(cert, key []byte) (*rotator.KeyPairArtifacts, error) {
	certBlock, _ := pem.Decode(cert)
	keyBlock, _ := pem.Decode(key)
	if certBlock == nil || keyBlock == nil {
		return nil, errors.New("it is no PEM")
	}
	parsed, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS1PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	return &rotator.KeyPairArtifacts{Cert: parsed, Key: private, CertPEM: cert, KeyPEM: key}, nil
}

// bundleOf is what the API server is to trust: the authorities of the Secret, and those that it trusts already, because a
// replica may serve with a certificate of theirs a moment longer.
func bundleOf(secret map[string][]byte, present []byte, now time.Time) []byte {
	var all [][]byte
	add := func(der []byte) {
		known := slices.ContainsFunc(all, func(other []byte) bool { return bytes.Equal(other, der) })
		if !known && len(all) < mostAuthorities {
			all = append(all, der)
		}
	}
	for _, key := range []string{keyCA, keyNextCA} {
		for _, der := range authorities(secret[key], now) {
			add(der)
		}
	}
	for _, der := range authorities(present, now) {
		add(der)
	}
	var bundle bytes.Buffer
	for _, der := range all {
		bundle.Write(pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der}))
	}
	return bundle.Bytes()
}

// authorities are the certificates in a bundle that have not run out.
func authorities(bundle []byte, now time.Time) [][]byte {
	var all [][]byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err == nil && now.Before(cert.NotAfter) {
			all = append(all, block.Bytes)
		}
	}
	return all
}

// trusted says whether an authority is in the bundle.
func trusted(bundle, authority []byte) bool {
	block, _ := pem.Decode(authority)
	if block == nil {
		return false
	}
	for other, rest := pem.Decode(bundle); other != nil; other, rest = pem.Decode(rest) {
		if bytes.Equal(other.Bytes, block.Bytes) {
			return true
		}
	}
	return false
}
