# The bucket is made by infrastructure/bootstrap; its name has the account's number, which is yours to write. It encrypts
# with its own KMS key: "encrypt = true" without that key's ARN would have S3 take another.
bucket       = "flowviz-terraform-state-123456789012"
key          = "staging/terraform.tfstate"
region       = "us-east-1"
use_lockfile = true
