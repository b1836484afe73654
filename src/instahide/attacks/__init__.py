"""Published attacks on InstaHide: each takes an observation and returns a finding."""
