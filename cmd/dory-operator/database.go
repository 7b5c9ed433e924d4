package main

import "context"

func (o *operator) addDatabase(context.Context) error { return nil }
