terraform {
  required_version = ">= 1.11" # the S3 backend's own lock, without DynamoDB

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # Bucket, key and region come from environments/<name>/backend.hcl: each environment has a state of its own.
  backend "s3" {}
}
