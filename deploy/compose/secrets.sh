#!/bin/sh
# Makes the secrets of docker-compose.yml that are not there yet: random ones, good for the emulated platforms.
# Write those of real platforms into the same files.
set -eu
folder="${1:-$(dirname "$0")/secrets}"
umask 077
mkdir -p "$folder" # entered by its owner only; the containers' users read what compose mounts from it, so 444 below
for name in shop_secret_key meta_access_token ga4_api_secret view_token grafana_admin_password; do
  if [ -s "$folder/$name" ]; then continue; fi
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$name"
  chmod 444 "$folder/$name"
  echo "made $folder/$name"
done
