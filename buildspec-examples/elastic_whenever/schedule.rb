# For the gem elastic_whenever (1.0.1), which makes an EventBridge rule of each command below:
#
#   elastic_whenever --update app --file schedule.rb --region eu-west-1 --cluster app --task-definition app --container app \
#     --launch-type FARGATE --subnets subnet-0123456789abcdef0,subnet-0123456789abcdef1 \
#     --security-groups sg-0123456789abcdef0 --assign-public-ip
#
# Without --update it only prints what it would make. `app` names no revision, and so does the rule: each start takes the newest
# revision of that family, and with it the image of the last deployment (CodePipeline's or the ECS CLI's). It has to be run
# again when this file changes, not when the image does. Do not pin a revision (`app:12`): its image may have expired in ECR.
#
# Times are UTC.

every :day, at: '3:00am' do
  command 'bin/nightly'
end

every 15.minutes do
  command 'bin/sync --quiet'
end

# In a Rails project `rake` and `runner` stand for `bundle exec rake ...` and `bundle exec bin/rails runner ...`.
every :monday, at: '6:30am' do
  rake 'reports:weekly'
end
