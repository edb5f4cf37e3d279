#!/bin/sh
# Starts the server given as arguments with a user for each role, who may do what the role does and
# nothing else. Options of the command line, because no configuration file of Redis can name a variable;
# the server gets only the SHA-256 of a password, which may be visible there.
#
#   RIVERDELTA_REDIS_PASSWORD  default: may do all, for people
#   RIVERDELTA_REDIS_WORKER_PASSWORD, _TURNS_, _GATEWAY_, _BACKEND_  the users of that name
#   RIVERDELTA_KEY_PREFIX      as everywhere; unset: rd
set -euf # f: a key pattern is no file name

# password_of NAME: a rule that lets a user in with the password in that variable.
password_of() {
    eval "password=\${$1:-}"
    case $password in
    '' | *[!A-Za-z0-9._~-]*)
        echo "$1: choose a password of letters, digits and . _ ~ - (it is part of a URL)" >&2
        exit 1
        ;;
    esac
    echo "#$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)"
}

default=$(password_of RIVERDELTA_REDIS_PASSWORD)
worker=$(password_of RIVERDELTA_REDIS_WORKER_PASSWORD)
turns=$(password_of RIVERDELTA_REDIS_TURNS_PASSWORD)
gateway=$(password_of RIVERDELTA_REDIS_GATEWAY_PASSWORD)
backend=$(password_of RIVERDELTA_REDIS_BACKEND_PASSWORD)

# Keys (~) and channels (&); riverdelta/broker/keys.py says what each is. EVALSHA must be allowed to
# write every key that its script names, also those that are only read.
rd=${RIVERDELTA_KEY_PREFIX:-rd}
chats="~$rd:{* &$rd:{*"
producers="~$rd:producers ~$rd:producer:*"
workers="~$rd:workers ~$rd:worker:*"
lists="~$rd:user:*:chats &$rd:user:*:chats"
ask_for_owner="~$rd:waiting ~$rd:queue"
ask_for_owner="$ask_for_owner ~arq:job:$rd:attach:* ~arq:result:$rd:attach:* ~arq:in-progress:$rd:attach:*"
pick_chats="$ask_for_owner ~$rd:queue:health-check ~arq:retry:$rd:attach:* ~arq:abort"
pick_turns="~$rd:turns ~$rd:turns:health-check ~arq:*:$rd:turn:* ~arq:abort"

# Commands. INFO tells which server it is, to a new connection and to claim.lua.
connect="-@all +@connection -client|tracking -@dangerous +info"
# On their own keys they may do what they like: a script that changes must not lock them out. What
# reaches other keys (SCAN, FLUSHALL, FUNCTION LOAD, ...) is no part of that.
data="+@read +@write +@transaction -@scripting -@dangerous -scan -randomkey"
data="$data +eval +evalsha +info +spublish +ssubscribe +sunsubscribe +time +wait"

# The gateway, which the world reaches, gets the commands that it sends, where it sends them: it reads
# chats, accepts turns (accept_turn.lua: the start of a message, never a reply), stops them (stop.lua), takes
# from a user's limits, lists their chats, and asks for turns and for workers.
# No id has a brace, but ids may have ":": so a head is the one key of a chat that ends with a brace, and
# "}:msg:" is in no head. Of raw entries, dead letters and calls that are owed it reads nothing.
read_chats="~$rd:{*} ~$rd:{*}:msg:* ~$rd:{*}:chunk:* ~$rd:{*}:deltas &$rd:{*}:deltas &$rd:user:*:chats"
read_chats="$read_chats +hget +hmget +hgetall +xrange +ssubscribe +sunsubscribe +time +wait"
read_chats="$read_chats +multi +exec +discard +unwatch"
# A script may be given every key of a chat; what it does to each needs a rule as well.
run_scripts="(~$rd:{* +eval +evalsha)"
accept_turns="(~$rd:{*} +hset) (~$rd:{*}:msg:* +hset +hsetnx) (~$rd:{*}:chunks +xadd)"
accept_turns="$accept_turns (~$rd:{* +persist) (&$rd:{*}:wake +spublish)"
# What is left of a chat whose head has expired; never a head.
left="~$rd:{*}:chunks ~$rd:{*}:producers ~$rd:{*}:msg:* ~$rd:{*}:deltas ~$rd:{*}:dead ~$rd:{*}:outbox"
accept_turns="$accept_turns ($left +del)"
take_tokens="(~$rd:user:*:bucket:posts +eval +evalsha +hmget +hset +pexpire)"
list_chats="(%R~$rd:user:*:chats +zrevrange)"
announce="(~$rd:user:*:chats &$rd:user:*:chats +eval +evalsha +zremrangebyscore +zadd +pexpire +spublish)"
ask_for_turns="(~$rd:turns ~arq:job:$rd:turn:* ~arq:result:$rd:turn:* +watch +exists +psetex +zadd)"
ask_for_workers="($ask_for_owner +eval +evalsha +zadd +zrem +exists +psetex)"

# shellcheck disable=SC2086  # rules are words
exec "$@" \
    --user default on "$default" '~*' '&*' +@all \
    --user worker on "$worker" $connect $data $chats $producers $workers $pick_chats \
    --user turns on "$turns" $connect $data $chats $producers $lists $ask_for_owner $pick_turns \
    --user gateway on "$gateway" $connect $read_chats $run_scripts \
    $accept_turns $take_tokens $list_chats $announce $ask_for_turns $ask_for_workers \
    --user backend on "$backend" $connect $data $chats $producers $lists $ask_for_owner
