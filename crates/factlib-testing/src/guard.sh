# Waits for the end of the process that started it, stops that process's children and removes their folder.
#
# $1: the folder to remove; $2: the signal that asks its processes to stop.
# Standard input: "+ pid" and "- pid" lines; its end is the end of that process.
trap '' HUP INT QUIT TERM

pids=
while read -r change pid; do
    case $change in
    +) pids="$pids $pid" ;;
    -)
        left=
        for p in $pids; do [ "$p" = "$pid" ] || left="$left $p"; done
        pids=$left
        ;;
    esac
done

signal_all() {
    for p in $pids; do kill -s "$1" "$p"; done
}

# Succeeds when all have ended within $1 tenths of a second.
gone_within() {
    tries=$(($1 * 5))
    while :; do
        alive=
        for p in $pids; do kill -0 "$p" && alive="$alive $p"; done
        [ -n "$alive" ] || return 0
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.02
    done
}

# CONT: a stopped process handles no signal but KILL.
signal_all "$2"
signal_all CONT
gone_within 50 || {
    signal_all KILL
    gone_within 20
}

# Grandchildren may still write to it.
tries=50
until rm -rf -- "$1" || [ "$tries" = 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
