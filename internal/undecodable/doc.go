// Package undecodable reads the objects of ours that Go cannot decode: written under an older CRD, or by another version.
//
// One such object would break the list and the watch of all of its kind, and with them every controller of every replica.
// Instead it is read as far as it goes, and marked. The mark is an annotation whose name no API server takes, so that it
// cannot be written back. An object that is marked is there, and nothing is decided by what is left of it:
//
//   - Get answers an Error, which holds it. That is not NotFound: taking it for an absence is a mistake.
//   - List answers an Error too, unless the caller says Tolerate and looks at every item itself, with Of.
//   - No write of a marked object leaves the operator.
//   - LeaveAside ends a pass of a reconciler that met one, without a word: internal/controller/leftaside has told about it.
//
// A quantity that Go could only decode in hours counts for one that it cannot: WrapTransport and the decoder of Informers see to it.
//
// What can be decoded is decoded as ever, in one go: an object is only taken apart after that failed.
package undecodable
