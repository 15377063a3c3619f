"""What `dm.cached` is made of: arguments, names, source, sessions, the call itself."""
