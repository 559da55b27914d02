#!/bin/sh
# Runs a compile command and keeps what it prints in <object>.log, where tools/check_cuda.py reads ptxas' figures. Shown are only
# the lines that are not such figures: warnings and errors.
log=""
previous=""
for argument in "$@"; do
  [ "$previous" = -o ] && log=$argument.log
  previous=$argument
done
[ -n "$log" ] || exec "$@"
"$@" >"$log" 2>&1
status=$?
grep -vE "^ptxas info|^ +[0-9]+ bytes stack frame" "$log" >&2
exit $status
