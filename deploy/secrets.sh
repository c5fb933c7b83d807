#!/bin/sh
# Makes the secrets of compose.yaml in ./secrets, once. Back up counterfoil.seal,
# apart from the database: without it the signing keys cannot be opened.
set -eu
umask 077
cd "$(dirname "$0")"
if [ -e secrets ]; then
	echo "secrets: they are there already" >&2
	exit 1
fi
mkdir secrets
password=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
printf '%s' "$password" > secrets/postgres-password
head -c 32 /dev/urandom | base64 > secrets/counterfoil.seal
printf 'database = postgres://counterfoil:%s@database:5432/counterfoil?sslmode=disable\n' "$password" > secrets/counterfoil.conf
# Compose hands a secret on with the owner and mode of its file: the nodes run
# as user 65532, and PostgreSQL's entry point reads the password as root.
if [ "$(id -u)" = 0 ]; then
	chown 65532:65532 secrets/counterfoil.conf secrets/counterfoil.seal
else
	echo "secrets: run as root, or: sudo chown 65532:65532 deploy/secrets/counterfoil.conf deploy/secrets/counterfoil.seal" >&2
fi
