# How the demo talks: what it says, runs and checks. Sourced by ./demo, which sets root and namespace.
# shellcheck shell=bash
# shellcheck disable=SC2016 # what is shown to a person is not for this shell to expand
# shellcheck disable=SC2154 # root and namespace

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
else
	bold='' green='' red='' dim='' plain=''
fi

checks=0

# chapter TITLE begins a part of the story.
chapter() { printf '\n%s== %s%s %s(%d s)%s\n' "$bold" "$1" "$plain" "$dim" "$SECONDS" "$plain"; }

# say TEXT... explains what comes.
say() { printf '%s\n' "$*"; }

# show TEXT prints a command as a person would type it, quoted where the shell needs it.
show() {
	local word line='$'
	for word; do
		case $word in
		'|') ;;
		*'$'*) word="\"$word\"" ;;
		'' | *[!a-zA-Z0-9_./:=@,+%-]*) word="'${word//\'/\'\\\'\'}'" ;;
		esac
		line+=" $word"
	done
	printf '%s%s%s\n' "$dim" "$line" "$plain"
}

# run COMMAND... prints the command, runs it, and ends the demo if it fails.
run() {
	show "$@"
	"$@" || fail "this command failed: $*"
}

# sql STATEMENT prints it as psql would be called, and runs it. The URL holds a password, so it is not shown.
sql() {
	printf "%s\$ psql \"\$DORY_DATABASE_URL\" -c \"%s\"%s\n" "$dim" "$1" "$plain"
	query "$1" || fail 'the database refused this statement; see its answer above'
}

# query STATEMENT [psql options] runs it without a word.
query() { psql "$DORY_DATABASE_URL" -X -v ON_ERROR_STOP=1 "${@:2}" -c "$1"; }

# value STATEMENT is the one value that it answers.
value() { query "$1" -qAt; }

# passed TEXT and failed checks are what the demo is for.
passed() {
	checks=$((checks + 1))
	printf '%s✔ %s%s\n' "$green" "$*" "$plain"
}

# check CLAIM COMMAND... ends the demo unless the command succeeds.
check() {
	local claim=$1
	shift
	if "$@"; then passed "$claim"; else fail "not so: $claim"; fi
}

# within SECONDS CLAIM COMMAND... repeats the command until it succeeds, and ends the demo if it never does.
within() {
	local seconds=$1 claim=$2 began=$SECONDS
	shift 2
	until "$@"; do
		[ $((SECONDS - began)) -lt "$seconds" ] || fail "not so after $seconds s: $claim"
		sleep 0.5
	done
	passed "$claim ($((SECONDS - began)) s)"
}

# fail REASON ends the demo, and shows where to look first.
fail() {
	printf '%s✘ %s%s\n' "$red" "$*" "$plain" >&2
	if [ -n "${cluster_is_up:-}" ]; then where_to_look >&2; fi
	exit 1
}

where_to_look() {
	printf '\n%sWhat the cluster says%s\n' "$bold" "$plain"
	kubectl -n dory-system get pods -o wide
	printf '\n-- last lines of the operators\n'
	kubectl -n dory-system logs --selector app.kubernetes.io/name=dory-operator --tail=15 --prefix
	printf '\n-- processors and pods\n'
	kubectl -n "$namespace" get processors,pods -o wide
	printf '\n-- last events\n'
	kubectl -n "$namespace" events | tail -n 15
	if [ -n "${DORY_DATABASE_URL:-}" ] && [ -n "$(value "SELECT to_regclass('processors')" 2>/dev/null)" ]; then
		printf '\n-- rows that could not become Processors\n'
		query "SELECT id, sync_error FROM processors WHERE sync_error IS NOT NULL"
	fi
	printf '\nGo on looking with: export KUBECONFIG=%s PATH=%s:$PATH\n' "$KUBECONFIG" "$root/bin/k8s"
}
