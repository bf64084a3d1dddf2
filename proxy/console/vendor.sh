#!/usr/bin/env bash
# Makes static/swagger-ui again: Swagger UI (Apache-2.0), unchanged, from npm by its name, version and SHA-256.
set -euo pipefail
cd "$(dirname "$0")/static/swagger-ui"
version=5.35.0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm pack --silent --pack-destination "$folder" "swagger-ui-dist@$version" >/dev/null
tar -xzf "$folder/swagger-ui-dist-$version.tgz" --strip-components=1 --touch \
	package/LICENSE package/NOTICE package/swagger-ui.css package/swagger-ui-bundle.js package/swagger-ui-bundle.js.LICENSE.txt
sha256sum --check --quiet SHA256SUMS
