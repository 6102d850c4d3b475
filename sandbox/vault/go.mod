module sandbox/vault

go 1.25.0

require github.com/hashicorp/vault v1.19.0
