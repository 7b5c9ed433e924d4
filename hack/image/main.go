// Command image packs a static binary into an image archive without Docker. The same input gives the same archive, byte for byte.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o options
	var output, tag string
	flags := flag.NewFlagSet("image", flag.ExitOnError)
	flags.StringVar(&o.binary, "binary", "", "`path` of the static binary, which becomes the entrypoint")
	flags.StringVar(&tag, "name", "", "`name:tag` of the image")
	flags.StringVar(&output, "output", "", "`path` of the archive to write")
	flags.IntVar(&o.user, "user", 65532, "user and group `id` to run as")
	flags.BoolVar(&o.caCertificates, "cacerts", false, "add this machine's certificate authorities, if it has any")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.binary == "" || tag == "" || output == "" {
		flags.Usage()
		return errors.New("-binary, -name and -output are all needed")
	}
	return build(o, tag, output)
}

func build(o options, tag, output string) error {
	reference, err := name.NewTag(tag)
	if err != nil {
		return fmt.Errorf("-name %q must be NAME:TAG: %w", tag, err)
	}
	// The default, latest, would make every pod pull the image from a registry that does not have it.
	if !strings.HasSuffix(tag, ":"+reference.TagStr()) {
		return fmt.Errorf("-name %q must be NAME:TAG: the tag is missing", tag)
	}
	image, err := assemble(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil { //nolint:gosec // not secret
		return fmt.Errorf("make the directory of -output: %w", err)
	}
	// A half-written archive never bears the final name.
	partial := output + ".tmp"
	if err := tarball.WriteToFile(partial, reference, image); err != nil {
		return fmt.Errorf("write -output %s: %w", output, err)
	}
	return os.Rename(partial, output)
}
