// Package hack holds what the build and the local cluster share.
package hack

import _ "embed"

// InstallPackages is the shell script that installs the Debian packages given as its arguments where they are missing.
//
//go:embed debs.sh
var InstallPackages string
