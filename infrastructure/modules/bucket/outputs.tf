output "id" {
  description = "Name of the bucket, once its policy is in force."
  value       = aws_s3_bucket_policy.this.bucket
}

output "arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.this.arn
}

output "versioning" {
  description = "The bucket's name once it keeps versions, which replication needs."
  value       = aws_s3_bucket_versioning.this.bucket
}
