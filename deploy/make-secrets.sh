#!/bin/sh
# Creates the folder deploy/secrets, which compose.yaml mounts. It contains a certificate authority, a certificate per
# service, and the hash of an API key. The script prints this key. Certificates are valid for 5 years; to create new
# certificates, delete the folder first.
set -eu
out="$(dirname "$0")/secrets"
if [ -e "$out" ]; then
  echo "$out exists already: delete it to create new secrets" >&2
  exit 1
fi
# Only the owner may enter the folder. The files in it are readable, because the containers run as uid 1000.
umask 022
tmp=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
days=1825

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1" && chmod 644 "$1"; }

new_key "$tmp/ca.key"
chmod 600 "$tmp/ca.key"
openssl req -x509 -new -key "$tmp/ca.key" -sha256 -days $days -subj /CN=ptp-ca -out "$tmp/ca.crt"

for service in gateway verifier drafter; do
  tls="$tmp/$service"
  mkdir "$tls"
  new_key "$tls/tls.key"
  cp "$tmp/ca.crt" "$tls/ca.crt"
  printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n' $service > "$tmp/names"
  openssl req -new -key "$tls/tls.key" -subj "/CN=$service" -out "$tmp/request"
  openssl x509 -req -in "$tmp/request" -CA "$tmp/ca.crt" -CAkey "$tmp/ca.key" -CAcreateserial -sha256 -days $days \
    -extfile "$tmp/names" -out "$tls/tls.crt"
done
rm -f "$tmp/names" "$tmp/request" "$tmp/ca.srl"

key="ptp-$(openssl rand -hex 24)"
hash=$(printf %s "$key" | openssl dgst -sha256 | sed 's/.*= *//')
printf '[{ "name": "default", "sha256": "%s" }]\n' "$hash" > "$tmp/api-keys.json"
mv "$tmp" "$out"
echo "API key: $key"
