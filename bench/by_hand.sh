#!/usr/bin/env bash
# The release of the back end as a careful person would script it: everything parallel, everything waited for.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export DOCKER_CONFIG="$work/docker" ALIYUNHUB_NAMESPACE=lfy_hello KUBECONFIG="$PIPE_SECRET_KUBECONFIG_FILE"
all() { local failed=0; for pid in "$@"; do wait "$pid" || failed=1; done; return $failed; }

printf '#!/bin/sh\ncase "$1" in User*) echo "$PIPE_SECRET_GITEE_USERNAME";; *) echo "$PIPE_SECRET_GITEE_PASSWORD";; esac\n' > "$work/askpass"
chmod +x "$work/askpass"
GIT_ASKPASS="$work/askpass" git clone -q --depth 1 "$BACKEND_GIT_URL" "$work/src"
cd "$work/src"
commit=$(git rev-parse HEAD)
mvn -q -B clean package -Dmaven.test.skip=true

services="hospital-manage server-gateway service/service-cmn service/service-hosp service/service-order
  service/service-oss service/service-sms service/service-statistics service/service-task service/service-user"

pids=()
for path in $services; do
  DOCKER_BUILDKIT=0 docker build -q --label "run=$BUILD_NUMBER" --label "commit=$commit" \
    -t "$REGISTRY/lfy_hello/${path##*/}:SNAPSHOT-$BUILD_NUMBER" "$path" > /dev/null & pids+=($!)
done
all "${pids[@]}"

echo "$PIPE_SECRET_REGISTRY_PASSWORD" | docker login "$REGISTRY" -u "$PIPE_SECRET_REGISTRY_USERNAME" --password-stdin > /dev/null 2>&1
pids=()
for path in $services; do docker push -q "$REGISTRY/lfy_hello/${path##*/}:SNAPSHOT-$BUILD_NUMBER" > /dev/null & pids+=($!); done
all "${pids[@]}"

kubectl create namespace his --dry-run=client -o yaml | kubectl apply -f - > /dev/null
kubectl -n his create secret docker-registry aliyun-docker-hub --docker-server="$REGISTRY" --dry-run=client -o yaml \
  --docker-username="$PIPE_SECRET_REGISTRY_USERNAME" --docker-password="$PIPE_SECRET_REGISTRY_PASSWORD" | kubectl apply -f - > /dev/null
release() {
  envsubst '$REGISTRY $ALIYUNHUB_NAMESPACE $BUILD_NUMBER' < "$1/deploy/deploy.yml" | kubectl apply --server-side --field-manager=pipe --force-conflicts -f - > /dev/null
  kubectl -n his rollout status "deployment/${1##*/}" --timeout=5m > /dev/null
}
pids=()
for path in $services; do release "$path" & pids+=($!); done
all "${pids[@]}"
