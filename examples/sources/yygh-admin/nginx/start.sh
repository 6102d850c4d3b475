#!/bin/sh
# Writes what only the place where nginx runs knows into its configuration, and becomes nginx.
set -eu

resolver=$(awk '$1 == "nameserver" { print ($2 ~ /:/ ? "[" $2 "]" : $2); exit }' /etc/resolv.conf)

# GATEWAY is host:port. nginx knows no search domains, so a cluster name gets the cluster's own, as in
# "search his.svc.cluster.local svc.cluster.local cluster.local".
gateway=${GATEWAY:-server-gateway.${NAMESPACE:-his}:8080}
domain=$(awk '$1 == "search" { for (i = 2; i <= NF; i++) if ($i ~ /^svc\./) { print $i; exit } }' /etc/resolv.conf)
host=${gateway%:*}
if [ -z "${GATEWAY:-}" ] && [ -n "$domain" ]; then
    host=$host.$domain
fi

sed -e "s|@RESOLVER@|${resolver:-127.0.0.1}|" \
    -e "s|@GATEWAY@|$host:${gateway##*:}|" \
    -e "s|@VERSION@|${TAG:-dev}|" \
    /etc/nginx/nginx.conf > /tmp/nginx.conf

exec nginx -e stderr -c /tmp/nginx.conf -g "daemon off;"
