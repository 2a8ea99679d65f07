# The bucket is made by infrastructure/bootstrap; its name has the account's number, which is yours to write.
bucket       = "flowviz-terraform-state-123456789012"
key          = "production/terraform.tfstate"
region       = "us-east-1"
encrypt      = true
use_lockfile = true
