// Package report tells people and programs how a node is doing: the timeline of its boot, its status as one
// document, and the record of the last boot that outlives a reboot.
//
// What enters are the results of the other stages; what leaves is text, JSON and log events. It decides nothing, and
// no value of a secret ever reaches it.
package report
